"""The seam: what becomes of whatever a plain Starlette handler attaches."""

import functools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from afterwards.background import InOrder, Later, after_answer
from afterwards.model import Task
from tasks import log_action

pytestmark = pytest.mark.anyio


class Given:
    """An engine that keeps what it is told to start."""

    def __init__(self) -> None:
        self.sequences: list[list[Task]] = []

    def start(self, sequences: Sequence[Sequence[Task]]) -> None:
        self.sequences.extend(list(tasks) for tasks in sequences)

    async def drain(self, seconds: float, cut_off: object) -> None:
        raise NotImplementedError

    def load(self) -> dict[str, int]:
        raise NotImplementedError

    def names(self) -> list[list[str]]:
        return [[task.name for task in tasks] for tasks in self.sequences]


async def one(number: int = 1) -> None:
    pass


def two() -> None:
    pass


async def answer_of(handler: object, carrier: str = "") -> tuple[httpx.Response, Given]:
    app = Starlette(routes=[Route("/", after_answer(handler, lambda request: carrier))])  # type: ignore[arg-type]
    app.state.engine = given = Given()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        return await client.get("/"), given


def attaching(background: BackgroundTask | None) -> object:
    async def handler(request: Request) -> Response:
        return PlainTextResponse("ok", background=background)

    return handler


async def test_nothing_attached_is_nothing_started_and_no_header() -> None:
    response, given = await answer_of(attaching(None))
    assert "task-id" not in response.headers
    assert given.sequences == []


async def test_no_tasks_in_background_tasks_is_nothing_too() -> None:
    response, given = await answer_of(attaching(BackgroundTasks()))
    assert "task-id" not in response.headers
    assert given.sequences == []


async def test_a_single_task_is_started_with_its_arguments() -> None:
    response, given = await answer_of(attaching(BackgroundTask(one, number=3)), carrier="1-a-b")
    [[task]] = given.sequences
    assert (task.name, task.function, task.args, task.kwargs) == ("one", one, (), {"number": 3})
    assert task.is_async
    assert task.carrier == "1-a-b"
    assert response.headers["task-id"] == task.id


async def test_tasks_of_one_response_are_started_side_by_side_each_with_its_id() -> None:
    response, given = await answer_of(
        attaching(BackgroundTasks([BackgroundTask(one), BackgroundTask(two)]))
    )
    assert given.names() == [["one"], ["two"]]
    assert response.headers["task-id"].split(", ") == [task.id for [task] in given.sequences]
    assert [task.is_async for [task] in given.sequences] == [True, False]


async def test_a_route_can_ask_for_order() -> None:
    in_order = InOrder(
        [BackgroundTask(one), BackgroundTasks([BackgroundTask(two), BackgroundTask(one)])]
    )
    _, given = await answer_of(attaching(BackgroundTasks([BackgroundTask(two), in_order])))
    assert given.names() == [["two"], ["one", "two", "one"]]


async def test_a_background_of_somebody_elses_making_stays_whole() -> None:
    class Special(BackgroundTasks):
        pass

    special = Special([BackgroundTask(one), BackgroundTask(two)])
    _, given = await answer_of(attaching(special))
    [[task]] = given.sequences
    assert (task.name, task.function, task.is_async) == ("Special", special, True)


async def test_a_partial_is_named_after_its_function() -> None:
    _, given = await answer_of(attaching(BackgroundTask(functools.partial(one, 2))))
    assert given.names() == [["one"]]


async def test_the_handler_knows_the_id_of_its_first_task() -> None:
    async def handler(request: Request) -> Response:
        return JSONResponse(request.state.task_id, background=BackgroundTask(one))

    response, _ = await answer_of(handler)
    assert response.json() == response.headers["task-id"]


async def test_a_plain_function_may_be_a_handler_as_in_starlette() -> None:
    def handler(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(one))

    response, given = await answer_of(handler)
    assert response.text == "ok"
    assert given.names() == [["one"]]


@pytest.mark.parametrize(
    ("run_at", "function", "why"),
    [
        (datetime(2026, 1, 1), log_action, "time zone"),
        (datetime(2026, 1, 1, tzinfo=UTC), one, "registered"),
    ],
)
def test_what_cannot_be_kept_for_later_is_refused(
    run_at: datetime, function: Callable[..., None], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Later(run_at, function, "later")
