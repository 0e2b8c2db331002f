"""Twelve lines of FastAPI with a task that is retried and survives `kill -9`: `uvicorn fastapi_app:app`."""

import urllib.request

from fastapi import BackgroundTasks, FastAPI

from afterwards import Afterwards, task


@task(attempts=5)
def announce(name: str) -> None:
    urllib.request.urlopen("https://example.com/hook", name.encode(), timeout=30).close()


app = FastAPI()


@app.post("/users/{name}")
async def sign_up(name: str, background: BackgroundTasks) -> dict[str, str]:
    background.add_task(announce, name)
    return {"name": name}


Afterwards("sqlite:///tasks.db").install(app)
