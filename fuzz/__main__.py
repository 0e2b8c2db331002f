"""`make fuzz`: send hostile requests to a real uvicorn for some minutes, and say what became of it.

It ends with 1 if an answer was 5xx but 503, if an accepted task is lost or does not settle, if the
process died or logged an error that is no task's, or if the loop stood still for longer than
`BOUND`.
"""

import argparse
import asyncio
import itertools
import re
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx

from fuzz import OTHERS_ERROR, QUICK
from fuzz.cases import Case, make
from fuzz.client import Answer, play
from fuzz.hostile import TOKEN
from tests import serving
from tests.serving import Server, sql, until

CLIENTS = 16
LIMIT = 0.1  # seconds that no request of 1 MiB or less holds the event loop for
BOUND = 1.0, 20.0  # of the loop's own CPU, and of the clock: generous, for a busy machine
DEAF_SECONDS = 90.0  # a loop that does not answer for so long will not
SETTLING_SECONDS = 60.0
SHOWN = 10
OWN_ANSWERS = rb"/health|/token|/login"  # whose refusals have a form of their own
TRIAL_SECONDS = 60.0


class Played(NamedTuple):
    begin: float
    end: float
    case: Case


class Stall(NamedTuple):
    end: float
    seconds: float
    cpu: float


class Run:
    """What was sent and answered so far."""

    def __init__(self, seed: str, server: Server, numbers: Sequence[int] | None) -> None:
        self.seed, self.server = seed, server
        self.numbers = iter(numbers) if numbers else itertools.count()
        self.routes: list[str] = httpx.get(server.url).json()["routes"]
        self.statuses: Counter[int] = Counter()
        self.unanswered = 0
        self.task_ids: set[str] = set()
        self.wrong: list[tuple[str, Case]] = []
        self.played: list[Played] = []  # those that took long

    async def client(self, deadline: float) -> None:
        """Play one case after another until the deadline."""
        for number in self.numbers:
            if time.monotonic() > deadline or self.server.process.poll() is not None:
                return
            await self._play(make(self.seed, number, self.routes))

    async def _play(self, case: Case) -> None:
        began = time.monotonic()
        try:
            answers = await play(self.server.port, case)
        except (TimeoutError, ConnectionError):
            answers = []
            self.unanswered += 1
        self.note(case, answers)
        if (ended := time.monotonic()) - began > LIMIT:
            self.played.append(Played(began, ended, case))

    def note(self, case: Case, answers: list[Answer]) -> None:
        """Count the answers, and keep the case if one of them is wrong."""
        for answer in answers:
            self.statuses[answer.status] += 1
            self.task_ids.update(answer.task_ids)
            if answer.status >= 500 and answer.status != 503:
                self.wrong.append((f"answered {answer.status}", case))
            is_own = answer.status in (400, 401, 429, 503) and re.search(OWN_ANSWERS, case.sent)
            if answer.status >= 400 and not answer.is_problem and not is_own:
                self.wrong.append((f"{answer.status} is no problem+json", case))


async def send(run: Run, seconds: float) -> None:
    """Send for so long, as many clients at once; give up on a server that answers nobody."""
    deadline = time.monotonic() + seconds
    async with asyncio.timeout(seconds + DEAF_SECONDS):
        await asyncio.gather(*(run.client(deadline) for _ in range(CLIENTS)))


def unsettled(database_url: str, ids: set[str]) -> dict[str, int]:
    """Count the accepted tasks that have not settled, by their states; `lost` have no row."""
    rows = dict(map(tuple, sql(database_url, "SELECT id, state FROM tasks")))
    settled = {"succeeded", "dead", "cancelled"}
    return Counter(state for id in ids if (state := rows.get(id, "lost")) not in settled)


def settle(run: Run, database_url: str) -> dict[str, int]:
    """Wait until all accepted tasks have settled; cancel those that wait for another attempt."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=run.server.url, headers=headers, timeout=30) as operator:
        while page := operator.get("/tasks?state=retrying&limit=1000").json()["tasks"]:
            for task in page:
                operator.delete(f"/tasks/{task['id']}")
    try:
        until(lambda: unsettled(database_url, run.task_ids).keys() <= {"lost"}, SETTLING_SECONDS)
    except AssertionError:
        print("not all accepted tasks have settled")
    return unsettled(database_url, run.task_ids)


def stalls(path: Path) -> list[Stall]:
    """Read what the server noted of its event loop."""
    return [Stall(*map(float, line.split())) for line in path.read_text().splitlines()]


async def guilty(run: Run, path: Path) -> list[str]:
    """Send the requests of the longest stalls again, one by one; name those that stall alone."""
    found, deadline = [], time.monotonic() + TRIAL_SECONDS
    suspects: dict[int, Case] = {}
    for stall in sorted(stalls(path), key=lambda stall: -stall.cpu)[:SHOWN]:
        begin = stall.end - stall.seconds
        if stall.cpu > LIMIT:
            cases = [
                each.case for each in run.played if each.begin < stall.end and each.end > begin
            ]
            suspects |= {case.number: case for case in cases}
    for case in suspects.values():
        began = time.monotonic()
        if began > deadline:
            break
        with suppress(TimeoutError, ConnectionError):
            await play(run.server.port, case)
        await asyncio.sleep(0.05)  # for a stall behind an answer that was not waited for
        cpu = max((stall.cpu for stall in stalls(path) if stall.end > began), default=0)
        if cpu > LIMIT:
            found.append(f"held the loop for {cpu * 1000:.0f} ms: {shown(case, run.seed)}")
    return found


def peak(pid: int) -> str:
    """Give the most memory that the process has had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peaks = (f"{int(line.split()[1]) // 1024} MB" for line in lines if line.startswith("VmHWM"))
    return next(peaks, "unknown")


def shown(case: Case, seed: str) -> str:
    """Say what a case is, and how to send it again."""
    what = f"{case.way}, {len(case.sent)} bytes: {case.sent[:150]!r}"
    return f"make fuzz SEED={seed} CASES={case.number}  # {what}"


def report(run: Run, found: list[Stall], memory: str, left: dict[str, int]) -> list[str]:
    """Print the table, and return what makes it a failure."""
    by_cpu = max(found, key=lambda stall: stall.cpu, default=Stall(0, 0, 0))
    by_clock = max(found, key=lambda stall: stall.seconds, default=Stall(0, 0, 0))
    over = [stall for stall in found if stall.cpu > LIMIT]
    statuses = sorted(run.statuses.items())
    unsettled = ", ".join(f"{count} {state}" for state, count in left.items())
    limit = f"limit: {LIMIT * 1000:.0f}"
    table = {
        "requests tried": sum(run.statuses.values()) + run.unanswered,
        "statuses": ", ".join(f"{status}: {count}" for status, count in statuses),
        "never answered": run.unanswered,
        "wrong answers": len(run.wrong),
        "tasks accepted": len(run.task_ids),
        "of them not settled": unsettled or "none",
        "slowest stall of the loop, its CPU": f"{by_cpu.cpu * 1000:.0f} ms ({limit})",
        "slowest stall by the clock": f"{by_clock.seconds * 1000:.0f} ms",
        "stalls over the limit": len(over),
        "peak memory": memory,
    }
    print(f"\n| seed {run.seed} | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in table.items()))
    for what, case in run.wrong[:SHOWN]:
        print(f"{what}: {shown(case, run.seed)}")
    failures = [what for what, _ in run.wrong if what.startswith("answered")]
    failures += ["accepted tasks did not settle"] if left else []
    stood_still = by_cpu.cpu > BOUND[0] or by_clock.seconds > BOUND[1]
    failures += ["the loop stood still"] if stood_still else []
    return failures


def main() -> int:
    """Run, report, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--cases", type=int, nargs="*", help="send these numbers only")
    another = "another application, to see what the fuzzer says of it"
    parser.add_argument("--app", default="fuzz.app:app", help=another)
    asked = parser.parse_args()
    print(f"seed {asked.seed}, {asked.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = directory / "stalls"
        variables = {"STALLS": str(path), "ADMIN_TOKEN": TOKEN, **QUICK}
        variables["JWT_SECRET"] = secrets.token_hex()  # so that there are users' tokens, too
        server = serving.start(directory, app=asked.app, args=["--no-access-log"], **variables)
        try:
            return _judged(Run(asked.seed, server, asked.cases), asked.minutes, directory, path)
        finally:
            server.kill()


def _judged(run: Run, minutes: float, directory: Path, path: Path) -> int:
    failures: list[str] = []
    found: list[Stall] = []
    culprits: list[str] = []
    left: dict[str, int] = {}
    try:
        asyncio.run(send(run, minutes * 60))
        left = settle(run, f"sqlite:///{directory}/service.db")
        found = stalls(path)
        culprits = asyncio.run(guilty(run, path))
    except (TimeoutError, httpx.HTTPError) as error:
        failures.append(f"the server answers nobody any more: {error!r}")
    if run.server.process.poll() is not None:
        failures.append(f"the process ended with {run.server.process.returncode}")
    failures += report(run, found or stalls(path), peak(run.server.pid), left)
    print("\n".join(culprits))
    log = run.server.log()
    if errors := [error.start() for error in re.finditer(OTHERS_ERROR, log, re.MULTILINE)]:
        failures.append(f"the log has {len(errors)} errors that are no task's; the first is above")
        print(log[errors[0] :][:5000])
    if failures:
        print("\n".join(["", *dict.fromkeys(failures)]))
    return 1 if failures else 0


sys.exit(main())
