"""Twelve lines of FastAPI, with a task that survives `kill -9`: `uvicorn fastapi_app:app`."""

import urllib.request

from fastapi import BackgroundTasks, FastAPI

from afterwards import Afterwards, task

app = FastAPI()
afterwards = Afterwards("sqlite:///tasks.db")
afterwards.install(app)


@task(attempts=5)
def announce(name: str) -> None:
    urllib.request.urlopen("https://example.com/hook", name.encode(), timeout=30).close()


@app.post("/users/{name}", status_code=202)
async def sign_up(name: str, background: BackgroundTasks) -> None:
    background.add_task(announce, name)
