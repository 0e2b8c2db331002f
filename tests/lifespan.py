"""The lifespan of an application in this process, as a server runs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Message


@asynccontextmanager
async def living(app: ASGIApp) -> AsyncIterator[None]:
    """Start the application, and stop it in the end; raise what it answers instead."""
    told: asyncio.Queue[Message] = asyncio.Queue()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def live() -> None:
        await app(scope, told.get, answers.put)

    life = asyncio.create_task(live())
    await _ask(life, told, answers, "startup")
    try:
        yield
    finally:
        await _ask(life, told, answers, "shutdown")
        await life


async def _ask(
    life: "asyncio.Task[None]",
    told: "asyncio.Queue[Message]",
    answers: "asyncio.Queue[Message]",
    what: str,
) -> None:
    told.put_nowait({"type": f"lifespan.{what}"})
    answer = asyncio.create_task(answers.get())
    await asyncio.wait([answer, life], return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        answer.cancel()
        await life
    if answer.result()["type"] != f"lifespan.{what}.complete":
        await asyncio.wait([life])
        life.exception()  # is known by the message
        raise RuntimeError(answer.result()["message"])
