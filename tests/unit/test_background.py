"""The seam: what becomes of whatever a plain Starlette handler attaches."""

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from afterwards import Afterwards, InOrder, Later, task
from afterwards.background import Groups
from afterwards.errors import NotStorable
from afterwards.model import Task
from afterwards.tracing import NoTracing
from tasks import log_action, write_audit_record

pytestmark = pytest.mark.anyio


class Given(Afterwards):
    """One that keeps what it is to start."""

    def __init__(self, carrier: str) -> None:
        super().__init__(tracing=Carrying(carrier))
        self.is_started = True
        self.sequences: list[list[Task]] = []

    async def accept(self, tasks: Sequence[Task]) -> None: ...

    def start_tasks(self, stored: Sequence[Task], in_memory: Groups) -> None:
        self.sequences += [*([task] for task in stored), *in_memory]

    def names(self) -> list[list[str]]:
        return [[task.name for task in tasks] for tasks in self.sequences]


class Carrying(NoTracing):
    def __init__(self, carrier: str) -> None:
        self._carrier = carrier

    def carrier(self, scope: Mapping[str, Any] | None) -> str:
        return self._carrier


async def one(number: int = 1) -> None:
    pass


def two() -> None:
    pass


async def answer_of(handler: object, carrier: str = "") -> tuple[httpx.Response, Given]:
    app = Starlette(routes=[Route("/", handler)])  # type: ignore[arg-type]
    given = Given(carrier)
    given.install(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get("/"), given


def attaching(background: BackgroundTask | None) -> object:
    async def handler(request: Request) -> Response:
        return PlainTextResponse("ok", background=background)

    return handler


async def test_nothing_attached_means_nothing_started() -> None:
    response, given = await answer_of(attaching(None))
    assert "task-id" not in response.headers
    assert given.sequences == []


async def test_empty_background_tasks_start_nothing() -> None:
    response, given = await answer_of(attaching(BackgroundTasks()))
    assert "task-id" not in response.headers
    assert given.sequences == []


async def test_a_task_starts_with_its_arguments() -> None:
    response, given = await answer_of(attaching(BackgroundTask(one, number=3)), carrier="1-a-b")
    [[task]] = given.sequences
    assert (task.name, task.function, task.args, task.kwargs) == ("one", one, (), {"number": 3})
    assert task.is_async
    assert task.carrier == "1-a-b"
    assert "task-id" not in response.headers  # which would mean a row


async def test_one_responses_tasks_start_together() -> None:
    both = [BackgroundTask(log_action, "a"), BackgroundTask(write_audit_record, "a")]
    response, given = await answer_of(attaching(BackgroundTasks(both)))
    assert given.names() == [["log_action"], ["write_audit_record"]]
    assert response.headers["task-id"].split(", ") == [task.id for [task] in given.sequences]
    assert [task.is_async for [task] in given.sequences] == [True, False]


async def test_a_route_can_ask_for_order() -> None:
    in_order = InOrder(
        [BackgroundTask(one), BackgroundTasks([BackgroundTask(two), BackgroundTask(one)])]
    )
    _, given = await answer_of(attaching(BackgroundTasks([BackgroundTask(two), in_order])))
    assert given.names() == [["two"], ["one", "two", "one"]]


async def test_a_custom_background_stays_whole() -> None:
    class Special(BackgroundTasks):
        async def __call__(self) -> None: ...

    special = Special([BackgroundTask(one), BackgroundTask(two)])
    _, given = await answer_of(attaching(special))
    [[task]] = given.sequences
    assert (task.name, task.function, task.is_async) == ("Special", special, True)


async def test_a_partial_bears_its_functions_name() -> None:
    _, given = await answer_of(attaching(BackgroundTask(functools.partial(one, 2))))
    assert given.names() == [["one"]]


async def test_the_handler_knows_its_tasks_id() -> None:
    async def handler(request: Request) -> Response:
        return JSONResponse(request.state.task_id, background=BackgroundTask(log_action, "a"))

    response, _ = await answer_of(handler)
    assert response.json() == response.headers["task-id"]


async def test_a_plain_function_may_handle_requests() -> None:
    def handler(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(one))

    response, given = await answer_of(handler)
    assert response.text == "ok"
    assert given.names() == [["one"]]


@pytest.mark.parametrize(
    ("run_at", "function", "why"),
    [
        (datetime(2026, 1, 1), log_action, "time zone"),
        (datetime(2026, 1, 1, tzinfo=UTC), one, "under @task"),
    ],
)
def test_what_cannot_run_later_is_refused(
    run_at: datetime, function: Callable[..., None], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Later(run_at, function, "later")


class Holder:
    @task("unit.method")
    async def method(self) -> None: ...


@functools.wraps(log_action)
async def decorated(action: str) -> None: ...


class Odd(BackgroundTask):
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    "background",
    [
        BackgroundTask(Holder().method),
        BackgroundTask(decorated, "a"),
        BackgroundTask(functools.partial(decorated, "a")),
        Odd(log_action, "a"),
        InOrder([BackgroundTask(one), BackgroundTask(log_action, "a")]),
    ],
)
async def test_what_no_row_holds_is_refused(background: BackgroundTask) -> None:
    with pytest.raises(NotStorable):
        await answer_of(attaching(background))


async def test_a_task_functions_partial_is_stored() -> None:
    background = BackgroundTask(functools.partial(log_action, "first"))
    response, given = await answer_of(attaching(background))
    [[task]] = given.sequences
    assert (task.name, task.args, response.headers["task-id"]) == (
        "log_action",
        ("first",),
        task.id,
    )


async def test_a_subclass_without_call_is_stored() -> None:
    class Mine(BackgroundTasks):
        pass

    _, given = await answer_of(attaching(Mine([BackgroundTask(log_action, "a")])))
    assert given.names() == [["log_action"]]
