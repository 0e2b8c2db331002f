"""Run the benchmarks one after another, and print each as it ends; everything stops by itself."""

import argparse
import os
import platform
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import (
    asleep,
    backlog,
    crash,
    demo,
    fleet,
    inside,
    latency,
    load,
    memory,
    sharded,
    table,
)

Options = argparse.Namespace

# By the name that --only takes: the heading, and what measures it.
PARTS: dict[str, tuple[str, Callable[[Options], Iterator[str]]]] = {
    "demo": ("Slow work in the request, and after the answer", lambda _: demo.measure()),
    "table": (
        f"Requests with a task that does nothing ({load.CONNECTIONS} connections, one process)",
        lambda options: table.measure(options.rounds, options.seconds),
    ),
    "queues": (
        "The same, over other queues",
        lambda options: table.measure_queues(options.rounds, options.seconds),
    ),
    "inside": ("What a request costs inside the application", lambda _: inside.measure()),
    "latency": ("One connection", lambda _: latency.measure()),
    "backlog": (
        "A backlog",
        lambda options: backlog.measure(options.backlog_rows, options.seconds),
    ),
    "fleet": (
        "A fleet: Celery's workers beside the web process",
        lambda options: fleet.measure(options.rounds, options.seconds),
    ),
    "sharded": (
        "Two databases, by key",
        lambda options: sharded.measure(options.rounds, options.seconds),
    ),
    "crash": ("A kill -9 in the middle of the work", lambda _: crash.measure()),
    "asleep": ("Answers beside a thousand sleeping tasks", lambda _: asleep.measure()),
    "memory": ("Memory of a sleeping task", lambda options: memory.measure(options.tasks)),
}

NUMBERS = (
    ("--rounds", 2, "how often each row of the tables is measured"),
    ("--seconds", 3, "how long each measurement under load takes"),
    ("--tasks", 10_000, "how many tasks sleep at a time"),
    ("--backlog-rows", 1_000_000, "how many rows wait in the backlog's table"),
)


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or what was started would stay
    print(_machine())
    for name in options.only or PARTS:
        title, measure = PARTS[name]
        print(f"\n## {title}\n", flush=True)
        for line in measure(options):
            print(line, flush=True)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    only = "run this alone; may be given several times"
    parser.add_argument("--only", choices=PARTS, action="append", help=only)
    for name, default, what in NUMBERS:
        parser.add_argument(name, type=int, default=default, help=what)
    return parser.parse_args()


def _machine() -> str:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    load_average = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {model[1] if model else platform.machine()},"
        f" Python {platform.python_version()}, load average {load_average:.2f} before the start"
    )


if __name__ == "__main__":
    main()
