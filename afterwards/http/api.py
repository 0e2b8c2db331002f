"""What can be asked about stored tasks, and what an operator can do to them."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from afterwards.http import checking
from afterwards.http.operators import admit
from afterwards.problems import Problem
from afterwards.skywalking.sw8 import parent_of
from afterwards.store import Filter

LIST_LENGTH = (
    256 * 1024
)  # characters of arguments, results and errors in one list: it is made on the event loop
LONGEST_WAIT = 25.0  # seconds; routers on platforms give up on an answer after 30

Id = Annotated[str, Field(pattern=r"^task-[0-9a-f-]{1,60}$")]


class _Wait(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class _Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")
    state: Literal["queued", "running", "retrying", "succeeded", "dead", "cancelled"] | None = None
    name: Annotated[str, Field(max_length=200, pattern="^[^\x00]*$")] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Id | None = None


async def show(request: Request) -> Response:
    """Answer how a task stands, after `?wait=` seconds at most if it has not settled before."""
    wait = min(LONGEST_WAIT, checking.query(request, _Wait).wait)
    return JSONResponse(_shown(await (_row_at_end(request, wait) if wait else _row(request))))


async def index(request: Request) -> Response:
    """Answer the operator with a page of tasks, the newest first, with the beginning of their arguments."""
    admit(request, request.app.state.admin_token)
    asked = checking.query(request, _Filter)
    rows = await request.app.state.store.page(
        Filter(asked.state, asked.name), limit=asked.limit, after=asked.after
    )
    shown, following = _fitting(rows), None
    if len(shown) < len(rows) or len(rows) == asked.limit:
        kept = {name: value for name, value in asked.model_dump().items() if value is not None}
        following = "/tasks?" + urlencode(kept | {"after": shown[-1].id})
    tasks = [{**_shown(row), "arguments": _json(row, "arguments")} for row in shown]
    return JSONResponse({"tasks": tasks, "next": following})


def _fitting(rows: Sequence[Any]) -> Sequence[Any]:
    left = LIST_LENGTH
    for count, row in enumerate(rows):
        left -= sum(len(text or "") for text in (row.arguments, row.result, row.error_message))
        if left < 0:
            return rows[:count]
    return rows


async def arguments(request: Request) -> Response:
    """Answer the operator with a task's whole arguments, as they are stored."""
    admit(request, request.app.state.admin_token)
    return Response((await _row(request)).arguments, media_type="application/json")


async def cancel(request: Request) -> Response:
    """Cancel a task that has not settled; one that runs is cut off."""
    admit(request, request.app.state.admin_token)
    row = await _row(request)
    if not await request.app.state.store.cancel(row.id):
        raise Problem(409, f"The task has settled: it is {(await _row(request)).state}.")
    request.app.state.engine.cancel(row.id)
    request.app.state.store.waiters.tell(row.id)
    return JSONResponse(_shown(await _row(request)))


async def retry(request: Request) -> Response:
    """Queue a dead or cancelled task anew, with all its attempts."""
    admit(request, request.app.state.admin_token)
    row = await _row(request)
    if not await request.app.state.store.retry(row.id):
        raise Problem(
            409, f"Only dead and cancelled tasks can be retried; this one is {row.state}."
        )
    request.app.state.worker.look()
    return JSONResponse(_shown(await _row(request)), 202, headers={"Location": f"/tasks/{row.id}"})


async def _row_at_end(request: Request, seconds: float) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    gone = asyncio.create_task(_is_gone(request))
    try:
        while True:
            with request.app.state.store.waiters.waiting(request.path_params["id"]) as woken:
                row = await _row(request)  # not before: it could end between this look and the wait
                left = deadline - asyncio.get_running_loop().time()
                if row.finished_at is not None or woken is None or left <= 0 or gone.done():
                    return row
                await asyncio.wait([gone, woken], timeout=left, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()


async def _is_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # what a GET brings as its body


async def _row(request: Request) -> Any:
    row = await request.app.state.store.get(request.path_params["id"].replace("\0", ""))
    if row is None:
        raise Problem(
            404, "There is no such task: it never was, or it settled long ago and was pruned."
        )
    return row


def _shown(row: Any) -> dict[str, Any]:
    parent = parent_of(row.carrier)
    return {
        "id": row.id,
        "name": row.name,
        "state": row.state,
        "attempt": row.attempt,
        "max_attempts": row.max_attempts,
        "crashes": row.crashes,
        **{
            name: _time(getattr(row, name))
            for name in ("created_at", "run_at", "started_at", "finished_at")
        },
        "trace_id": parent.trace_id if parent else None,
        "result": _json(row, "result"),
        "error": None
        if row.error_kind is None
        else {"kind": row.error_kind, "message": row.error_message},
    }


def _json(row: Any, column: str) -> Any:
    """Read the column; where a list has only its beginning, give that as text, and say how much is left out."""
    text = getattr(row, column)
    if text is None:
        return None
    left_out = getattr(row, f"{column}_length", len(text)) - len(text)
    return f"{text} [... {left_out} characters]" if left_out else json.loads(text)


def _time(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
