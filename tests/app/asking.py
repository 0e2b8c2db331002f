"""What tests of the service in this process ask of its answers, and of what comes after."""

import asyncio
import re

import httpx
from starlette.applications import Starlette

TASK_ID = r"task-\d{8}-\d{6}-\d{6}-[0-9a-f]{16}"
NOTHING = (0, 0, 0.0)
ADA = {"email": "ada@example.com", "username": "ada"}


async def drained(app: Starlette) -> None:
    app.state.afterwards.process.wake()
    async with asyncio.timeout(10):
        while await left(app) != NOTHING:  # noqa: ASYNC110 - the truth is in the database
            await asyncio.sleep(0.01)


async def left(app: Starlette) -> tuple[int, int, float]:
    state = app.state.afterwards
    return (
        await state.store.count_due(1),
        state.process.slots.load()["running"],
        await state.store.oldest_waiting(),
    )


def ids(response: httpx.Response) -> list[str]:
    return re.findall(TASK_ID, response.headers.get("task-id", ""))
