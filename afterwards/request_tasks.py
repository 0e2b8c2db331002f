"""The tasks of one request: stored before its answer is sent, started when it has gone."""

import copy
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Scope

from afterwards import idempotency
from afterwards.background import Groups, groups_of
from afterwards.errors import DatabaseUnavailable, KeyIsUnderWay, OutcomeUnknown
from afterwards.idempotency import Headers, Key
from afterwards.model import Task, new_task_id
from afterwards.store.database import Connection
from afterwards.store.fate import KEPT, Fate, follow

if TYPE_CHECKING:
    from afterwards.app import Afterwards

log = logging.getLogger("tasks")

# The request that this context belongs to, for what its handler enqueues by itself.
current_request: ContextVar["RequestTasks | None"] = ContextVar("current_request", default=None)


class RequestTasks:
    """What an `Afterwards` knows of one request.

    Its handler finds in `request.state.task_id` the id that the first of its tasks will have.
    """

    __slots__ = (
        "_enqueued",
        "enqueued_within",
        "first_id",
        "is_inside",
        "key",
        "owner",
        "root_path",
        "scope",
        "unkept",
        "was_sent",
    )

    def __init__(self, owner: "Afterwards", scope: Scope) -> None:
        self.owner = owner
        self.scope = scope
        self.root_path: str = scope.get("root_path", "")  # a mount adds to the scope's
        self.first_id = new_task_id()
        self.key: Key | None = None
        # By the handler itself, before there was a response.
        self._enqueued: list[tuple[Task, Fate]] = []
        self.enqueued_within = False  # some of those wait for the handler's own commit
        # An answer that was sent before the handler's transaction was committed.
        self.unkept: tuple[Response, Key] | None = None
        self.is_inside = False  # of the exception handlers
        self.was_sent = False  # the answer, or its beginning
        # What request.state.task_id would do, without making the object behind it.
        scope.setdefault("state", {})["task_id"] = self.first_id
        current_request.set(self)

    def next_id(self) -> str:
        """Return the id that the handler knows, and new ones after it."""
        id, self.first_id = self.first_id, ""
        return id or new_task_id()

    def enqueued(self) -> list[Task]:
        """List what the handler has enqueued, and not rolled back."""
        return [task for task, fate in self._enqueued if not fate.is_undone]

    def add(self, task: Task, fate: Fate = KEPT) -> None:
        """Have the answer bear this task's id."""
        self._enqueued.append((task, fate))

    def concerns(self, response: Response) -> bool:
        """Tell whether there is anything to be done about this answer."""
        background = getattr(response, "background", None)
        return background is not None or bool(self._enqueued) or self.key is not None

    async def take_over(self, response: Response) -> Response:
        """Store what the response's background holds, and return the response to be sent.

        That is an earlier one where this request's Idempotency-Key has one. Raises `Refused`,
        `NotStarted`, `NotStorable` or `ArgumentsRefused`: then nothing was accepted.
        """
        if isinstance(response.background, Started):
            if response.background.request is self:
                return response
            response = _renewed(response, response.background)
        key, self.key = self.key, None  # an answer to what is raised here needs no second look
        groups = groups_of(response.background, self.next_id, self._carrier)
        new = [task for group in groups if group[0].stored for task in group]
        in_memory = [group for group in groups if not group[0].stored]
        stored = [*self.enqueued(), *new]
        if not stored and key is not None and response.status_code >= HTTPStatus.BAD_REQUEST:
            # The first request may be why this one failed: its user, say, stands in the way.
            return await self._earlier(key) or response
        if not stored and not (in_memory and self.owner.is_started):
            return response
        headers = self._announce(response, stored)
        response.background = Started(self, response.background, new, in_memory, headers)
        if key is not None and stored:
            return await self._store_once(response, key, new)
        if new:
            await self.owner.accept(new)
        return response

    async def enqueue_within(
        self, connection: Connection, task: Task, insert: Callable[[], Awaitable[None]]
    ) -> None:
        """Store a task in the handler's transaction, along with this request's key."""
        if self.key is not None:
            await self._reserve(connection, self.key, [task])
        await insert()
        self.add(task, follow(connection))

    async def _store_once(self, response: Response, key: Key, new: list[Task]) -> Response:
        if not new:
            await self.keep(response, key)
            return response
        try:
            # Not with others' in one commit: a key that another has would fail theirs as well.
            async with self.owner.database.transaction() as connection:
                await self._reserve(connection, key, new)
                await self.owner.accept_within(connection, new)
                await idempotency.remember(self.owner.database, connection, key, response)
        except idempotency.SeenBefore:  # at the same moment
            if earlier := await self._earlier(key):
                return earlier
            raise
        except OutcomeUnknown as error:
            raise KeyIsUnderWay(
                "whether the request was stored is not known yet; send it again in a moment"
            ) from error
        return response

    async def _reserve(self, connection: Connection, key: Key, new: list[Task]) -> None:
        enqueued = self.enqueued()
        ids = [task.id for task in [*enqueued, *new]]
        is_known = bool(enqueued)
        database = self.owner.database
        await idempotency.reserve(database, connection, key, ids, is_known=is_known)

    async def keep(self, response: Response, key: Key) -> None:
        """Keep an answer beside its key, now or as `unkept` until the request has ended."""
        if any(fate.is_open for _, fate in self._enqueued):
            # Its key's row cannot be seen yet, and SQLite would wait for it in vain.
            self.unkept = response, key
            return
        try:
            async with self.owner.database.transaction() as connection:
                await idempotency.remember(self.owner.database, connection, key, response)
        except DatabaseUnavailable as error:
            # What the handler has committed is done, and must not be answered by a 503.
            log.warning("an answer is not kept beside its Idempotency-Key: %s", error)

    def _announce(self, response: Response, stored: list[Task]) -> Headers:
        """Add to the response what tells of these tasks, and return it."""
        if not stored:
            return []
        headers = self.headers_of([task.id for task in stored], response.status_code)
        if len(headers) > 1 and any(name == b"location" for name, _ in response.raw_headers):
            del headers[1:]  # the handler's own is better
        response.raw_headers += headers
        return headers

    def headers_of(self, ids: Sequence[str], status: int = HTTPStatus.ACCEPTED) -> Headers:
        """Make the headers that tell of these tasks, `Task-Id` first."""
        headers = [(b"task-id", ", ".join(ids).encode())]
        pages = self.owner.pages
        if status == HTTPStatus.ACCEPTED and len(ids) == 1 and pages is not None:
            headers.append((b"location", f"{quote(self.root_path + pages)}/{ids[0]}".encode()))
        return headers

    def _carrier(self) -> str:
        return self.owner.tracing.carrier(self.scope)

    async def _earlier(self, key: Key) -> Response | None:
        return await idempotency.earlier_answer(self.owner.database, key, self.headers_of)


class Started(BackgroundTask):
    """The background that a response has in place of the handler's: it starts the tasks."""

    def __init__(
        self,
        request: RequestTasks,
        original: Any,
        stored: list[Task],
        in_memory: Groups,
        headers: Headers,
    ) -> None:
        self.request = request
        self.original = original
        self.headers = headers
        self._stored = stored
        self._in_memory = in_memory

    async def __call__(self) -> None:
        owner = self.request.owner
        owner.start_tasks(self._stored, self._in_memory)
        if self.request.enqueued_within:
            owner.process.wake()


def _renewed(response: Response, started: Started) -> Response:
    """Copy a response that was sent before, by another request, as it was made."""
    new = copy.copy(response)
    vars(new).pop("_headers", None)
    new.raw_headers = [each for each in response.raw_headers if each not in started.headers]
    new.background = started.original
    return new
