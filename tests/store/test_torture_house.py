"""The house of `make torture` is idle when no task is open, and not before."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest

from afterwards.store.database import Database
from tests.serving import sql
from torture.house import House

INSERT = """INSERT INTO tasks (id, name, state, arguments, carrier, in_thread, attempt,
    max_attempts, crashes, created_at, run_at, publish_at)
    VALUES (:id, 'torture.sleep', :state, '{}', '', false, 0, 3, 0, 0, 0, 0)"""


class Moving(House):
    """Its process lists none under each state: every task has just left that for another."""

    def ask(self, path: str) -> Any:
        return {"tasks": [], "next": None}


async def make_tables(database_url: str) -> None:
    database = Database(database_url)
    await database.make_tables()
    await database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    asyncio.run(make_tables(f"sqlite:///{tmp_path}/service.db"))
    return tmp_path


@pytest.fixture
def house(path: Path) -> House:
    return Moving(path, f"sqlite:///{path}/service.db", 0)


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
def test_a_moving_task_keeps_houses_busy(house: House, state: str) -> None:
    sql(house.database_url, INSERT, id=secrets.token_hex(8), state=state)
    assert not house.is_idle()


@pytest.mark.parametrize("state", ["succeeded", "dead", "cancelled"])
def test_an_ended_task_leaves_houses_idle(house: House, state: str) -> None:
    sql(house.database_url, INSERT, id=secrets.token_hex(8), state=state)
    assert house.is_idle()


def test_without_processes_no_house_is_idle(path: Path) -> None:
    assert not House(path, f"sqlite:///{path}/service.db", 0).is_idle()
