"""What can be asked of stored tasks, done to them, and sent with an Idempotency-Key."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import tasks
from afterwards import Afterwards, InOrder, Later, waiting
from afterwards.testing import TaskKit
from settings import settings
from tests.app.asking import ADA, drained, ids
from web import bodies

pytestmark = pytest.mark.anyio


def installed(app: Starlette) -> Afterwards:
    afterwards = Afterwards()
    afterwards.install(app)
    return afterwards


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def never_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 3600)


async def settled(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    body: dict[str, Any] = (await client.get(f"/tasks/{task_id}?wait=10")).json()
    return body


async def dead_task(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Accept a task that no deploy knows any more."""
    [task_id] = ids(await client.post("/action"))
    await settled(client, task_id)
    async with app.state.afterwards.database.transaction() as connection:
        await connection.exec_driver_sql(
            "UPDATE afterwards_tasks SET name = 'gone', state = 'queued', attempt = 0,"
            " worker = NULL, finished_at = NULL"
        )
    app.state.afterwards.process.wake()
    return task_id


async def test_a_tasks_page_says_its_end(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post("/action")
    [task_id] = ids(response)
    assert response.headers["location"] == f"/tasks/{task_id}"
    task = await settled(client, task_id)
    assert list(task) == [
        *(
            "id",
            "name",
            "state",
            "attempt",
            "max_attempts",
            "crashes",
            "created_at",
            "run_at",
            "started_at",
        ),
        *("finished_at", "trace_id", "result", "error"),
    ]
    assert (task["id"], task["name"], task["state"]) == (task_id, "log_action", "succeeded")
    assert (task["attempt"], task["max_attempts"], task["crashes"], task["error"]) == (
        1,
        5,
        0,
        None,
    )
    assert task["created_at"] <= task["started_at"] <= task["finished_at"]


@pytest.mark.usefixtures("never_polled")
async def test_a_local_end_wakes_who_waits(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "notify_seconds", 0.5)
    monkeypatch.setattr(settings, "sleep_seconds", 300)
    [ends] = ids(await client.post("/api/notifications/notify"))
    [is_cancelled] = ids(await client.get("/test"))
    async with asyncio.timeout(9):  # the time itself would end it after 10
        assert (await settled(client, ends))["state"] == "succeeded"
        waits = asyncio.create_task(settled(client, is_cancelled))
        await asyncio.sleep(0.1)
        await client.delete(f"/tasks/{is_cancelled}")
        assert (await waits)["state"] == "cancelled"


async def test_waiting_ends_with_task_or_time(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "notify_seconds", 0.5)
    [task_id] = ids(await client.post("/api/notifications/notify"))
    assert (await client.get(f"/tasks/{task_id}?wait=0.05")).json()["state"] == "running"
    assert (await settled(client, task_id))["state"] == "succeeded"


async def test_several_tasks_have_no_location(app: Starlette, client: httpx.AsyncClient) -> None:
    assert "location" not in (await client.post("/complex-action")).headers
    await drained(app)


async def test_a_later_task_waits_until_due(
    app: Starlette,
    client: httpx.AsyncClient,
) -> None:
    async def remind(request: Request) -> Response:
        return PlainTextResponse(
            "ok", 202, background=Later(now() + timedelta(seconds=1), tasks.log_action, "later")
        )

    other = Starlette(routes=[Route("/", remind)])
    app.state.afterwards.install(other)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(other), base_url="http://localhost"
    ) as other_client:
        asked_at = now()
        [task_id] = ids(await other_client.get("/"))
    waiting = (await client.get(f"/tasks/{task_id}")).json()
    assert (waiting["state"], waiting["attempt"]) == ("queued", 0)
    assert (
        timedelta(seconds=0.9)
        < datetime.fromisoformat(waiting["run_at"]) - asked_at
        < timedelta(seconds=5)
    )
    done = await settled(client, task_id)
    assert done["state"] == "succeeded"
    assert done["started_at"] >= done["run_at"] == waiting["run_at"]


async def test_ordered_tasks_follow_one_another(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "notify_seconds", 0.3)

    async def announce(request: Request) -> Response:
        steps = [
            BackgroundTask(tasks.send_notification),
            BackgroundTask(tasks.write_audit_record, "order"),
        ]
        return PlainTextResponse(
            "ok", background=InOrder([*steps, BackgroundTask(tasks.log_action, "order")])
        )

    other = Starlette(routes=[Route("/", announce)])
    app.state.afterwards.install(other)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(other), base_url="http://localhost"
    ) as other_client:
        task_ids = ids(await other_client.get("/"))
    first, second, third = [await settled(client, task_id) for task_id in task_ids]
    assert [each["state"] for each in (first, second, third)] == ["succeeded"] * 3
    assert (
        first["finished_at"] <= second["started_at"] <= second["finished_at"] <= third["started_at"]
    )


@pytest.mark.parametrize("task_id", ["task-1", "nothing", "%00", "task-" + "0" * 500])
async def test_an_unknown_task_is_not_found(client: httpx.AsyncClient, task_id: str) -> None:
    assert (await client.get(f"/tasks/{task_id}")).status_code == 404


@pytest.mark.parametrize("query", ["wait=-1", "wait=x", "wait=nan", "wait=inf", "until=1"])
async def test_a_wrong_wait_is_422(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/tasks/task-1?{query}")).status_code == 422


async def test_pages_list_the_newest_tasks_first(app: Starlette, client: httpx.AsyncClient) -> None:
    accepted = [ids(await client.post("/process", json={"id": number}))[0] for number in range(3)]
    await drained(app)
    first = (await client.get("/tasks?limit=2&state=succeeded&name=process_item")).json()
    assert [task["id"] for task in first["tasks"]] == accepted[:0:-1]
    assert first["tasks"][0]["arguments"] == {"item": {"id": 2}, "owner": ""}
    rest = (await client.get(first["next"])).json()
    assert [task["id"] for task in rest["tasks"]] == accepted[:1]
    assert rest["next"] is None


@pytest.mark.parametrize("before", ["2026-01-31T12:00:00", "yesterday", "2026-13-01T00:00:00Z"])
async def test_a_wrong_moment_is_422(client: httpx.AsyncClient, before: str) -> None:
    response = await client.get(f"/tasks?before={before}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "#/before"


async def test_lists_filter_by_error_and_age(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await dead_task(app, client, monkeypatch)
    task = await settled(client, id)
    [later] = ids(await client.post("/action"))
    await drained(app)
    for query, expected in {
        "error=UnknownTask": [id],
        "error=is named 'gone'": [id],
        "error=Timeout": [],
        f"before={task['created_at']}": [],
        f"before={(await settled(client, later))['created_at']}": [id],
        "before=2126-01-01T00:00:00Z": [later, id],
    }.items():
        listed = (await client.get(f"/tasks?{query}")).json()["tasks"]
        assert (query, [each["id"] for each in listed]) == (query, expected)
    page = (await client.get("/tasks?before=2126-01-01T01:00:00%2B01:00&limit=1")).json()
    rest = (await client.get(page["next"])).json()
    assert [each["id"] for each in (*page["tasks"], *rest["tasks"])] == [later, id]


@pytest.mark.parametrize(
    "query", ["state=lost", "limit=0", "limit=9999", "after=x", "name=%00", "error=%00", "page=1"]
)
async def test_a_wrong_filter_is_422(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/tasks?{query}")).status_code == 422


async def test_a_cancelled_running_task_stays_cancelled(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "sleep_seconds", 60)
    [task_id] = ids(await client.get("/test"))
    cancelled = await client.delete(f"/tasks/{task_id}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    await drained(app)
    assert (await client.delete(f"/tasks/{task_id}")).status_code == 409
    assert (await client.get(f"/tasks/{task_id}")).json()["state"] == "cancelled"


async def test_cancelled_tasks_retry_and_succeeded_cannot(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(settings, "sleep_seconds", 60)
        [task_id] = ids(await client.get("/test"))
        await client.delete(f"/tasks/{task_id}")
        await drained(app)
    assert (await client.post(f"/tasks/{task_id}/retry")).status_code == 202
    assert (await settled(client, task_id))["state"] == "succeeded"
    assert (await client.post(f"/tasks/{task_id}/retry")).status_code == 409


async def test_an_unknown_task_dies_with_reason(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await settled(client, await dead_task(app, client, monkeypatch))
    assert (task["state"], task["error"]["kind"]) == ("dead", "UnknownTask")
    assert "no task function is named 'gone'" in task["error"]["message"]


async def test_no_answer_shows_secret_arguments(client: httpx.AsyncClient) -> None:
    await client.post("/users/", json=ADA)
    listed = await client.get("/tasks")
    [welcome] = listed.json()["tasks"]
    whole = await client.get(f"/tasks/{welcome['id']}/arguments")
    assert whole.json() == welcome["arguments"] == {"email": "***", "username": "ada"}
    one = await client.get(f"/tasks/{welcome['id']}?wait=5")
    assert ADA["email"] not in listed.text + whole.text + one.text


async def test_a_list_shortens_long_arguments(app: Starlette, client: httpx.AsyncClient) -> None:
    [short] = ids(await client.post("/process", json={"id": 1}))
    [long] = ids(await client.post("/process", json={"id": 2, "text": "\xfc" * 5000}))
    await drained(app)
    listed = {task["id"]: task for task in (await client.get("/tasks")).json()["tasks"]}
    assert listed[short]["arguments"]["item"] == {"id": 1}
    assert listed[long]["arguments"].startswith('{"item":{"id":2,"text":"\xfc\xfc')
    length = len('{"item":{"id":2,"text":""},"owner":""}') + 5000
    assert listed[long]["arguments"].endswith(f"\xfc [... {length - 1024} characters]")
    whole = await client.get(f"/tasks/{long}/arguments")
    assert whole.json() == {"item": {"id": 2, "text": "\xfc" * 5000}, "owner": ""}
    assert (
        await client.get(f"/tasks/{long}/arguments", headers={"forwarded": "for=a"})
    ).status_code == 403


async def test_a_list_shortens_a_long_result(app: Starlette, client: httpx.AsyncClient) -> None:
    [task_id] = ids(await client.post("/action"))
    await drained(app)
    async with app.state.afterwards.database.transaction() as connection:
        await connection.exec_driver_sql(f"UPDATE afterwards_tasks SET result = '\"{'x' * 5000}\"'")
    [task] = (await client.get("/tasks")).json()["tasks"]
    assert task["result"] == '"' + "x" * 1023 + " [... 3978 characters]"
    assert (await client.get(f"/tasks/{task_id}")).json()["result"] == "x" * 5000


async def test_long_tasks_end_a_list_early(app: Starlette, client: httpx.AsyncClient) -> None:
    accepted = [id for _ in range(100) for id in ids(await client.post("/complex-action"))]
    await drained(app)
    async with app.state.afterwards.database.transaction() as connection:
        await connection.exec_driver_sql(
            f"UPDATE afterwards_tasks SET error_kind = 'ValueError', error_message = '{'x' * 2000}'"
        )
    path, listed, pages = "/tasks?limit=1000", list[str](), 0
    while path:
        answer = await client.get(path)
        assert len(answer.content) < 512 * 1024
        listed += [task["id"] for task in answer.json()["tasks"]]
        path, pages = answer.json()["next"], pages + 1
    assert pages == 3
    assert listed == sorted(accepted, reverse=True)


async def test_a_key_repeats_task_and_answer(app: Starlette, client: httpx.AsyncClient) -> None:
    first, again = [
        await client.post("/async-task/", headers={"idempotency-key": "k1"}) for _ in range(2)
    ]
    assert (again.status_code, again.content, ids(again)) == (
        first.status_code,
        first.content,
        ids(first),
    )
    other = await client.post("/async-task/", headers={"idempotency-key": "k2"})
    assert ids(other) != ids(first)
    await drained(app)
    assert len((await client.get("/tasks")).json()["tasks"]) == 2


async def test_one_key_adds_one_user(app: Starlette, client: httpx.AsyncClient) -> None:
    answers = [
        await client.post("/users/", json=ADA, headers={"idempotency-key": "k"}) for _ in range(2)
    ]
    assert [each.status_code for each in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    await drained(app)


async def test_simultaneous_keys_make_one_task(app: Starlette, client: httpx.AsyncClient) -> None:
    sending = (client.post("/action", headers={"idempotency-key": "k"}) for _ in range(10))
    answers = await asyncio.gather(*sending)
    assert {each.status_code for each in answers} == {202}
    assert len({ids(each)[0] for each in answers}) == 1
    await drained(app)
    assert len((await client.get("/tasks")).json()["tasks"]) == 1


async def test_a_reused_key_is_422(app: Starlette, client: httpx.AsyncClient) -> None:
    await client.post("/process", json={"id": 1}, headers={"idempotency-key": "k"})
    assert (
        await client.post("/process", json={"id": 2}, headers={"idempotency-key": "k"})
    ).status_code == 422
    assert (await client.post("/action", headers={"idempotency-key": "k"})).status_code == 422
    await drained(app)


@pytest.mark.parametrize("key", ["", "x" * 256, "\t"])
async def test_what_is_no_key_is_422(client: httpx.AsyncClient, key: str) -> None:
    assert (await client.post("/action", headers={"idempotency-key": key})).status_code == 422


async def test_a_keyed_body_reads_any_way(
    database_url: str,
) -> None:
    async def handler(request: Request) -> Response:
        read = [
            await bodies.whole(request),
            await request.body(),
            b"".join([part async for part in request.stream()]),
        ]
        assert {*read} == {b'{"id": 1}'}
        return JSONResponse(await request.json())

    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    async with TaskKit(database_url) as kit:
        kit.put_on(installed(app))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            for headers in ({}, {"idempotency-key": "k"}):
                answer = await client.post("/", content='{"id": 1}', headers=headers)
                assert (answer.status_code, answer.json()) == (200, {"id": 1})


async def test_a_stream_keeps_only_its_tasks(database_url: str) -> None:
    async def handler(request: Request) -> Response:
        return StreamingResponse(
            iter(["piece"]), background=BackgroundTask(tasks.log_action, "streamed")
        )

    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    async with TaskKit(database_url) as kit:
        kit.put_on(installed(app))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            first = await client.post("/", headers={"idempotency-key": "k"})
            assert (first.status_code, first.text) == (200, "piece")
            again = await client.post("/", headers={"idempotency-key": "k"})
            assert (again.status_code, ids(again)) == (409, [])
        assert [attempt.task.id for attempt in await kit.drain()] == ids(first)


async def test_one_key_may_store_and_attach(database_url: str) -> None:
    async def handler(request: Request) -> Response:
        background = BackgroundTasks()
        afterwards = request.scope["afterwards"]
        async with afterwards.database.transaction() as connection:
            await afterwards.enqueue(tasks.log_action, "stored", within=connection)
        background.add_task(tasks.log_action, "attached")
        return PlainTextResponse("ok", background=background)

    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    async with TaskKit(database_url) as kit:
        kit.put_on(installed(app))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            first, again = [
                await client.post("/", headers={"idempotency-key": "k"}) for _ in range(2)
            ]
        assert ids(again) == ids(first)
        assert sorted(attempt.task.id for attempt in await kit.drain()) == sorted(ids(first))


async def test_a_refused_request_frees_its_key(app: Starlette, client: httpx.AsyncClient) -> None:
    assert (
        await client.post("/process", json={}, headers={"idempotency-key": "k"})
    ).status_code == 422
    assert (
        await client.post("/process", json={"id": 1}, headers={"idempotency-key": "k"})
    ).status_code == 202
    await drained(app)


async def test_full_backlogs_refuse_and_store_nothing(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.afterwards.process.backlog, "_most", 0)
    response = await client.post("/action")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert ids(response) == []
    assert (await client.get("/tasks")).json()["tasks"] == []


async def test_an_unstored_task_adds_no_user(
    app: Starlette, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.afterwards.process.backlog, "_most", 0)
    assert (await client.post("/users/", json=ADA)).status_code == 503
    assert (await client.get("/users/")).json() == []


def test_every_task_function_is_registered() -> None:
    from afterwards import registry

    functions = [
        each
        for each in vars(tasks).values()
        if getattr(each, "__module__", "") == "tasks" and callable(each)
    ]
    assert {each.__name__ for each in functions if registry.of_function(each) is None} == {
        "_send",
        "demonstrate",
    }
