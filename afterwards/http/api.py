"""What can be asked about stored tasks, and what an operator can do to them."""

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import quote, urlencode

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from afterwards.http import checking, login
from afterwards.http.operators import Operator, Operators
from afterwards.problems import Problem
from afterwards.store import Filter
from afterwards.store.tasks import Store
from afterwards.telling import change_told, told, told_to_operators

# Characters of arguments, results and errors in one list: it is made on the event loop.
LIST_LENGTH = 256 * 1024
LONGEST_WAIT = 25.0  # seconds; routers on platforms give up on an answer after 30

NOT_KEPT = {"Cache-Control": "no-store"}  # by a browser whose operator has logged out


def _with_a_date(text: object) -> object:
    if not re.match(r"\d{4}-\d\d-\d\d", str(text)):
        raise ValueError("A moment is told as 2026-01-31T12:00:00Z.")
    return text


Text = Annotated[str, Field(max_length=200, pattern="^[^\x00]*$")]
# As RFC 3339 has it: pydantic would take a bare number, such as a year, for seconds since 1970.
Moment = Annotated[AwareDatetime, BeforeValidator(_with_a_date)]
Id = Annotated[str, Field(pattern=r"^task-[0-9a-f-]{1,60}$")]


class Process(Protocol):
    """What runs tasks in this process."""

    def wake(self) -> None:
        """Claim at once: something is due."""

    def cancel(self, id: str) -> None:
        """Cut off the attempt, if it runs here."""


class Owner(Protocol):
    """Whose tasks are asked about; both are asked for at each request."""

    @property
    def store(self) -> Store: ...

    @property
    def process(self) -> Process: ...


class _Wait(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid")
    state: Literal["queued", "running", "retrying", "succeeded", "dead", "cancelled"] | None = None
    name: Text | None = None
    error: Text | None = None
    before: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Id | None = None


class _ChangesPage(BaseModel):
    model_config = ConfigDict(extra="forbid")
    limit: Annotated[int, Field(ge=1, le=100)] = 100
    after: Annotated[str, Field(pattern=r"^change-[0-9a-f-]{1,60}$")] | None = None


class Tasks:
    """The endpoints; the links that they give are made of the paths that they are asked at."""

    def __init__(self, owner: Owner, operators: Operators) -> None:
        self.owner, self.operators = owner, operators

    async def index(self, request: Request) -> Response:
        """Answer the operator with tasks, newest first, and the beginning of their arguments."""
        self._admit(request)
        asked = checking.query(request, _Page)
        rows = await self._page(asked)
        shown, following = _fitting(rows), None
        if len(shown) < len(rows) or len(rows) == asked.limit:
            following = _next(request, asked, shown[-1].id)
        tasks = [told_to_operators(row) for row in shown]
        return JSONResponse({"tasks": tasks, "next": following}, headers=NOT_KEPT)

    async def changes(self, request: Request) -> Response:
        """Answer the operator with what operators changed, the newest first."""
        self._admit(request)
        asked = checking.query(request, _ChangesPage)
        rows = await self.owner.store.changes(limit=asked.limit, after=asked.after)
        following = _next(request, asked, rows[-1].id) if len(rows) == asked.limit else None
        changes = [change_told(row) for row in rows]
        return JSONResponse({"changes": changes, "next": following}, headers=NOT_KEPT)

    async def one(self, request: Request) -> Response:
        """Answer how a task stands, after `?wait=` seconds at most, or cancel it."""
        if request.method == "DELETE":
            return await self._cancel(request)
        wait = min(LONGEST_WAIT, checking.query(request, _Wait).wait)
        return JSONResponse(
            told(await (self._row_at_end(request, wait) if wait else self._row(request)))
        )

    async def arguments(self, request: Request) -> Response:
        """Answer the operator with a task's whole arguments, as they are stored."""
        self._admit(request)
        arguments = (await self._row(request)).arguments
        return Response(arguments, headers=NOT_KEPT, media_type="application/json")

    async def retry(self, request: Request) -> Response:
        """Queue a dead or cancelled task anew, with all its attempts."""
        operator = self._admit(request, changes=True)
        row = await self._row(request)
        if not await self.owner.store.retry(row.id, operator.change("retry")):
            detail = f"Only dead and cancelled tasks can be retried; this one is {row.state}."
            raise Problem(409, detail)
        operator.log("retry", [row.id])
        self.owner.process.wake()
        location = quote(request.scope["path"].rstrip("/").removesuffix("/retry"))
        return JSONResponse(told(await self._row(request)), 202, {"Location": location})

    def _admit(self, request: Request, changes: bool = False) -> Operator:
        try:
            return self.operators.admit(request, changes)
        except Problem as problem:
            raise login.instead_of(problem, request) from None

    async def _cancel(self, request: Request) -> Response:
        operator = self._admit(request, changes=True)
        row = await self._row(request)
        if not await self.owner.store.cancel(row.id, operator.change("cancel")):
            raise Problem(409, f"The task has settled: it is {(await self._row(request)).state}.")
        operator.log("cancel", [row.id])
        self.owner.process.cancel(row.id)
        self.owner.store.waiters.tell(row.id)
        return JSONResponse(told(await self._row(request)))

    async def _page(self, asked: _Page) -> Sequence[Any]:
        wanted = Filter(asked.state, asked.name, asked.error, asked.before)
        return await self.owner.store.page(wanted, limit=asked.limit, after=asked.after)

    async def _row(self, request: Request) -> Any:
        row = await self.owner.store.get(request.path_params["id"].replace("\0", ""))
        if row is None:
            detail = "There is no such task: it never was, or it settled long ago and was pruned."
            raise Problem(404, detail)
        return row

    async def _row_at_end(self, request: Request, seconds: float) -> Any:
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        gone = asyncio.create_task(_is_gone(request))
        try:
            while True:
                with self.owner.store.waiters.waiting(request.path_params["id"]) as woken:
                    # Not before: it could end between this look and the wait.
                    row, left = await self._row(request), deadline - clock()
                    if woken is None or left <= 0 or row.finished_at is not None:
                        return row
                    if gone.done():
                        gone.result()  # raises what refused the body
                        return row
                    await asyncio.wait(
                        [gone, woken], timeout=left, return_when=asyncio.FIRST_COMPLETED
                    )
        finally:
            gone.cancel()


async def _is_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # what a GET brings as its body


def _next(request: Request, asked: BaseModel, last: str) -> str:
    again = asked.model_dump(mode="json", exclude_none=True) | {"after": last}
    return f"{quote(request.scope['path'])}?{urlencode(again)}"


def _fitting(rows: Sequence[Any]) -> Sequence[Any]:
    left = LIST_LENGTH
    for count, row in enumerate(rows):
        left -= sum(len(text or "") for text in (row.arguments, row.result, row.error_message))
        if left < 0:
            return rows[:count]
    return rows
