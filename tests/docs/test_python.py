"""The pages' Python is true: it runs, and what it builds accepts tasks and runs them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.background import BackgroundTasks

from afterwards import registry
from tests import pages, serving
from tests.lifespan import living

pytestmark = pytest.mark.anyio

ORDERS = "SELECT email FROM orders"
TOKEN = {"Authorization": "Bearer a secret of sixteen characters or more"}


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Each page is an application of its own, and names its tasks as it likes.
    monkeypatch.setattr(registry, "_by_name", {**registry._by_name})


@asynccontextmanager
async def _running(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with living(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


async def test_the_readme_installs_and_attaches() -> None:
    background = BackgroundTasks()
    pages.run("README.md", app=Starlette(), background=background)
    assert [task.args for task in background.tasks] == [("ada@example.com",)]


@pytest.mark.parametrize("without", ["fastapi", ""], ids=["Starlette", "FastAPI"])
async def test_the_adopting_application_runs_its_task(without: str) -> None:
    names = pages.run("docs/adopting.md", without=without)
    async with _running(names["app"]) as client:
        answer = await client.post("/users?email=ada@example.com")
        assert answer.status_code == 201
        task = await client.get(f"/tasks/{answer.headers['Task-Id']}?wait=20")
    assert (task.json()["state"], task.json()["result"]) == (
        "succeeded",
        "welcome, ada@example.com",
    )


@pytest.mark.parametrize("without", ["fastapi", ""], ids=["Starlette", "FastAPI"])
async def test_the_test_that_it_shows_passes(without: str) -> None:
    await pages.run("docs/adopting.md", without=without)["test_a_new_user_is_welcomed"]()


async def test_an_order_comes_with_its_task() -> None:
    names = pages.run("docs/adopting.md", without="fastapi")
    async with _running(names["app"]) as client:
        id = await names["add_order"]("ada@example.com")
        task = await client.get(f"/tasks/{id}?wait=20")
    await names["engine"].dispose()
    assert task.json()["state"] == "succeeded"
    assert await asyncio.to_thread(serving.sql, "sqlite:///data/tasks.db", ORDERS)


async def test_a_failed_order_has_no_task() -> None:
    names = pages.run("docs/adopting.md", without="fastapi")
    async with _running(names["app"]) as client:
        with suppress(ZeroDivisionError):
            async with AsyncSession(names["engine"]) as session, session.begin():
                await names["afterwards"].enqueue(names["welcome"], "ada", within=session)
                raise ZeroDivisionError
        listed = await client.get("/tasks/", headers=TOKEN)
    await names["engine"].dispose()
    assert listed.json()["tasks"] == []


async def test_the_tasks_page_enqueues() -> None:
    names = pages.run("docs/tasks.md")
    await names["afterwards"].start()
    ids = [
        await names["remind_in_an_hour"](),
        await asyncio.to_thread(names["from_a_plain_function"]),
    ]
    rows = [await names["afterwards"].store.get(id) for id in ids]
    await names["afterwards"].stop()
    assert [row.name for row in rows] == ["shrink", "shrink"]
