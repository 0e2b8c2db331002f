"""Run the benchmarks one after another, and print each as it ends; everything stops by itself."""

import argparse
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks import demo, load, memory, table

PARTS = ("demo", "table", "memory")


def main() -> None:
    options = _options()
    parts = [options.only] if options.only else PARTS
    print(_machine())
    if "demo" in parts:
        _show("Slow work in the request, and after the answer", demo.measure())
    if "table" in parts:
        title = f"Requests with a task that does nothing ({load.CONNECTIONS} connections, one process)"
        complaint = load.missing()
        _show(title, [f"left out: {complaint}"] if complaint else table.measure(options.rounds, options.seconds))
    if "memory" in parts:
        _show("Memory of a sleeping task", memory.measure(options.tasks))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="run this alone")
    parser.add_argument("--rounds", type=int, default=3, help="how often each row of the table is measured")
    parser.add_argument("--seconds", type=int, default=4, help="how long each of these measurements takes")
    parser.add_argument("--tasks", type=int, default=10_000, help="how many tasks sleep at a time")
    return parser.parse_args()


def _machine() -> str:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    load_average = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}, Python {platform.python_version()}, "
        f"load average {load_average:.2f} before the start"
    )


def _show(title: str, lines: Iterable[str]) -> None:
    print(f"\n## {title}\n", flush=True)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
