"""The load: one run of wrk on loopback, and what it read."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

CONNECTIONS = 64
CONNECTING_SECONDS = 1  # before the first request; see the script
SCRIPT = Path(__file__).with_name("load.lua")
SECONDS_OF = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Reading(NamedTuple):
    """What wrk saw: answers, those that were errors or never came, and latencies in ms.

    `rate` is of those that were no errors.
    """

    requests: int
    failed: int
    rate: float
    p50: float
    p99: float

    @property
    def accepted(self) -> int:
        return max(0, self.requests - self.failed)


def missing() -> str:
    """Say what to install when wrk is not there; else nothing."""
    if shutil.which("wrk"):
        return ""
    return "wrk is not installed (Debian and Ubuntu: apt-get install wrk)"


def run(url: str, seconds: int) -> Reading:
    """Load `url` over 64 connections for so many seconds."""
    duration = seconds + CONNECTING_SECONDS  # whole seconds, because wrk takes no others
    options = f"--threads=1 --connections={CONNECTIONS} --duration={duration}s --latency".split()
    options += [f"--script={SCRIPT}", url, "--", str(CONNECTIONS), str(CONNECTING_SECONDS * 1000)]
    told = subprocess.check_output(["wrk", *options], text=True, timeout=seconds + 30)
    requests, lasted = _found(r"(\d+) requests in ([\d.]+)s", told).groups()
    errors = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", told)))
    unanswered = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", told)))
    return Reading(
        requests=int(requests),
        failed=errors + unanswered,
        rate=(int(requests) - errors) / (float(lasted) - CONNECTING_SECONDS),
        p50=_milliseconds("50", told),
        p99=_milliseconds("99", told),
    )


def _milliseconds(percentile: str, told: str) -> float:
    match = _found(rf"\s{percentile}%\s+([\d.]+)(us|ms|s|m)", told)
    return float(match[1]) * SECONDS_OF[match[2]] * 1000


def _found(pattern: str, told: str) -> re.Match[str]:
    match = re.search(pattern, told)
    if match is None:
        raise RuntimeError(f"wrk said something else:\n{told}")
    return match
