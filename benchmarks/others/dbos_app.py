"""DBOS over SQLite or Postgres: the route starts or queues a workflow; the same process runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbos import DBOS, DBOSConfig  # type: ignore[import-not-found]  # it is in .venv-bench alone
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.plain import ANSWER, nothing
from settings import settings

# Its own tables want a file of their own, and psycopg.
FILE_OR_SERVER = settings.database_url.replace("service.db", "dbos.db")
DBOS(config=DBOSConfig(name="bench", system_database_url=FILE_OR_SERVER, log_level="WARNING"))


@DBOS.workflow()  # type: ignore[untyped-decorator]  # as above
async def work() -> None:
    await nothing()


async def accept(request: Request) -> Response:
    await DBOS.start_workflow_async(work)
    return JSONResponse(ANSWER)


async def accept_queued(request: Request) -> Response:
    await DBOS.enqueue_workflow_async("tasks", work)
    return JSONResponse(ANSWER)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    DBOS.launch()
    await DBOS.register_queue_async("tasks")
    yield
    DBOS.destroy()


app = Starlette(routes=[Route("/", accept)], lifespan=lifespan)
queued_app = Starlette(routes=[Route("/", accept_queued)], lifespan=lifespan)
