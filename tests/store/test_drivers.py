"""Without Postgres' driver there is SQLite, and who wants more is told what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

from afterwards.store.migrations import newest

PROGRAM = """
import asyncio, sys
sys.modules["asyncpg"] = None  # as if it were not installed
from afterwards.store.database import Database

async def main():
    database = Database(sys.argv[1])
    await database.make_tables()
    print(await database.schema_version())
    await database.close()

asyncio.run(main())
"""


def run(url: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", PROGRAM, url]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_sqlite_needs_no_asyncpg(tmp_path: Path) -> None:
    done = run(f"sqlite:///{tmp_path}/tasks.db")
    assert (done.stdout.strip(), done.stderr) == (str(newest()), "")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+asyncpg"])
def test_postgres_says_what_it_takes(scheme: str) -> None:
    done = run(f"{scheme}://127.0.0.1:1/none")
    assert "ValueError: url: names a Postgres, which takes `pip install" in done.stderr
