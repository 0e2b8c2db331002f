"""FastAPI's own background tasks, with the same answer and the same task as all the others."""

from fastapi import BackgroundTasks, FastAPI

from benchmarks.plain import ANSWER, nothing


async def accept(background: BackgroundTasks) -> dict[str, str]:
    background.add_task(nothing)
    return ANSWER


app = FastAPI()
app.add_api_route("/", accept)
