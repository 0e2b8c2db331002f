"""Torture the service for some minutes on each database; exit 1 if a rule was broken."""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from tests import serving
from tests.databases import POSTGRES, empty_database
from torture import facts, report
from torture.clients import Client, Killers
from torture.house import OPEN_STATES, House
from torture.records import Book
from torture.tormentor import Tormentor, both

CALM_SECONDS = 180  # in which all that is open must end, once nobody torments it any more


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or what was started would stay
    if options.judge:
        sys.exit(_judge(options.judge, f"{options.judge}"))
    databases = options.database or ["sqlite", *(["postgres"] if POSTGRES else [])]
    sys.exit(max([asyncio.run(_campaign(kind, options)) for kind in databases]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    add = parser.add_argument
    minutes = "how long each database's campaign takes, without the calm after it"
    add("--minutes", type=float, default=2, help=minutes)
    add("--seed", type=int, default=random.randrange(10**6), help="what the plan is made from")
    databases = "this alone; by default both, if TEST_POSTGRES_URL is set"
    add("--database", choices=["sqlite", "postgres"], action="append", help=databases)
    add("--processes", type=int, default=2)
    add("--clients", type=int, default=16)
    killers = "post tasks that take their process down as well"
    add("--killers", action=argparse.BooleanOptionalAction, default=True, help=killers)
    add("--keep", action="store_true", help="keep the files also when nothing is found")
    judge = "judge the files of an earlier campaign again"
    add("--judge", type=Path, metavar="DIRECTORY", help=judge)
    return parser.parse_args()


async def _campaign(kind: str, options: argparse.Namespace) -> int:
    directory = Path(tempfile.mkdtemp(prefix=f"torture-{kind}-"))
    title = f"{kind}, {options.minutes:g} minutes, seed {options.seed}"
    print(f"\n{title}; files in {directory}\n", flush=True)
    database: AbstractAsyncContextManager[str] = empty_database(kind, directory)
    async with database as database_url:
        # In this thread, which signals reach; nobody else is in the loop.
        _torture(directory, database_url, options)
    failed = _judge(directory, title)
    if failed or options.keep:
        print(f"\nthe files are kept in {directory}; seed {options.seed}", flush=True)
    else:
        shutil.rmtree(directory)
    return failed


def _torture(directory: Path, database_url: str, options: argparse.Namespace) -> None:
    with House(directory, database_url, options.processes) as house:
        clients = [Client(house, number, options.seed) for number in range(options.clients)]
        threads: list[Client | Tormentor] = [*clients, *both(house, options.seed)]
        if options.killers:
            threads.append(Killers(house, options.clients, options.seed))
        broken: list[object] = []
        threading.excepthook = broken.append
        try:
            for thread in threads:
                thread.start()
            time.sleep(options.minutes * 60)
        finally:
            for thread in threads:
                thread.stop()
            for thread in threads:
                thread.join()
        if broken:
            raise RuntimeError(f"the campaign itself is broken: {broken}")
        with suppress(AssertionError):  # what is open still is told of in the table
            serving.until(house.is_idle, CALM_SECONDS)
        _note_the_last(house)


def _note_the_last(house: House) -> None:
    """Note how the tasks stand that did not succeed, and who the users are."""
    book = Book(house.directory, "last")
    for state in (*OPEN_STATES, "dead", "cancelled"):
        for task in house.tasks(state):
            book.write(part=task["arguments"].get("part"), state=state, task=task)
    for user in house.users():
        book.write(user=user)


def _judge(directory: Path, title: str) -> int:
    found = facts.load(directory)
    for line in (*report.table(found, title), *report.findings(found)):
        print(line, flush=True)
    return int(report.has_failed(found))


if __name__ == "__main__":
    main()
