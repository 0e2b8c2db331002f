"""fastapi-taskflow over SQLite: a task waits in memory, and is written down once it has run."""

import os

from fastapi import BackgroundTasks, FastAPI
from fastapi_taskflow import TaskAdmin, TaskManager  # type: ignore[import-not-found]  # it is in .venv-bench alone

from benchmarks.plain import ANSWER, nothing

FILE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")
manager = TaskManager(snapshot_db=f"{FILE}.taskflow", requeue_pending=True)
manager.task(retries=4)(nothing)


async def accept(background: BackgroundTasks) -> dict[str, str]:
    background.add_task(nothing)
    return ANSWER


app = FastAPI()
TaskAdmin(app, manager, auto_install=True)
app.add_api_route("/", accept)
