"""What the tests ask of `bad_days_app`, and of the rows that it leaves."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.serving import Server, sql

Serve = Callable[..., Server]
BAD_DAYS = "tests.process.bad_days_app:app"
INSERT = """INSERT INTO tasks (id, name, arguments, in_thread, carrier, state, attempt,
    max_attempts, crashes, created_at, run_at)
    WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count - 1)
    SELECT 'task-20260101-000000-000000-' || {}, CAST(:name AS VARCHAR),
    CAST(:arguments AS VARCHAR), CAST(:in_thread AS BOOLEAN), '', 'queued', 0,
    5, 0, CAST(:now AS BIGINT), CAST(:now AS BIGINT) FROM numbers"""


def post(server: Server, name: str, **arguments: object) -> httpx.Response:
    return httpx.post(f"{server.url}/do/{name}", json=arguments, timeout=30)


def do(server: Server, name: str, **arguments: object) -> str:
    """Enqueue the task, which must be accepted, and return its id."""
    response = post(server, name, **arguments)
    assert response.status_code == 202, response.text
    return response.headers["task-id"]


def settled(server: Server, id: str) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/tasks/{id}?wait=20", timeout=30)
    task: dict[str, Any] = answer.raise_for_status().json()
    assert task["state"] in ("succeeded", "dead", "cancelled"), task
    return task


def insert(
    database_url: str, name: str, arguments: str = "{}", count: int = 1, **changes: object
) -> list[str]:
    """Insert due rows as an earlier deploy may have left them."""
    ids = [f"task-20260101-000000-000000-{number:016x}" for number in range(count)]
    values = {"in_thread": False, "now": int(time.time() * 1e6), "count": count, **changes}
    is_sqlite = database_url.startswith("sqlite")
    digits = "printf('%016x', n)" if is_sqlite else "lpad(to_hex(n), 16, '0')"
    sql(database_url, INSERT.format(digits), name=name, arguments=arguments, **values)
    return ids


def states(database_url: str) -> dict[str, int]:
    return dict(map(tuple, sql(database_url, "SELECT state, count(*) FROM tasks GROUP BY state")))


def states_of(database_url: str, accepted: list[str]) -> dict[str, str]:
    """Give the states of those tasks, and "lost" for what has no row."""
    rows = {row.id: row.state for row in sql(database_url, "SELECT id, state FROM tasks")}
    return {id: rows.get(id, "lost") for id in accepted}


def all_succeeded(database_url: str, accepted: list[str], seconds: float) -> None:
    def unfinished() -> dict[str, str]:
        found = states_of(database_url, accepted)
        return {id: state for id, state in found.items() if state != "succeeded"}

    deadline = time.monotonic() + seconds
    while left := unfinished():
        assert time.monotonic() < deadline, (
            f"{len(left)} of {len(accepted)} did not succeed: {list(left.items())[:5]}"
        )
        time.sleep(0.1)
