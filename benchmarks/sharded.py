"""Tasks over two databases, routed by key as docs/growing.md has it, beside the same over one."""

import asyncio
import itertools
import logging
import os
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from afterwards import Afterwards, task
from asgi_app import lifespan as quietened
from benchmarks import servers, table
from benchmarks.plain import ANSWER, LEVEL, nothing
from benchmarks.rows import PER_COMMIT, Row

ONE = Row("one SQLite file, 2 processes", "benchmarks.sharded:one", PER_COMMIT, processes=2)
TWO = ONE._replace(name="two SQLite files, 2 processes", app="benchmarks.sharded:two")
BOTH = (servers.POSTGRES, servers.SECOND_POSTGRES)
ONE_SERVER = ONE._replace(name="one Postgres, 2 processes", needs=BOTH[:1])
TWO_SERVERS = TWO._replace(name="two Postgres, 2 processes", needs=BOTH)


def measure(rounds: int, seconds: int) -> Iterator[str]:
    """Compare two databases with one, on SQLite and on Postgres."""
    for one, two in ((ONE, TWO), (ONE_SERVER, TWO_SERVERS)):
        if missing := two.missing():
            yield from (f"left out: {complaint}" for complaint in sorted(missing))
            continue
        yield from table.compared(one, (two,), rounds, seconds)
        yield ""


@task("sharded nothing")
async def stored_nothing() -> None:
    await nothing()


def _over(urls: Sequence[str]) -> Starlette:
    logging.getLogger().setLevel(LEVEL)
    shards = [Afterwards(url) for url in urls]
    keys = map(str, itertools.count())

    async def accept(request: Request) -> Response:
        shard = shards[zlib.crc32(next(keys).encode()) % len(shards)]
        await shard.enqueue(stored_nothing)
        return JSONResponse(ANSWER)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with quietened(app):
            await asyncio.gather(*(shard.start() for shard in shards))
            yield
            await asyncio.gather(*(shard.stop() for shard in shards))

    return Starlette(routes=[Route("/", accept)], lifespan=lifespan)


def _urls() -> list[str]:
    first = os.environ.get("DATABASE_URL", "sqlite:///data/service.db")
    second = os.environ.get("SECOND_DATABASE_URL")
    return [first, second or first.replace("service.db", "second.db")]


one, two = _over(_urls()[:1]), _over(_urls())
