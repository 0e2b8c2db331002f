"""What a connection may hold and for how long: uvicorn with httptools bounds neither.

`guard` is called by the front door, so that plain `uvicorn asgi_app:app` is guarded too. Under
another server, or with `--http h11`, it changes nothing. A watch looks at all connections each
second, and nothing is timed for each request.
"""

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from afterwards import problems
from afterwards.errors import RETRY_SECONDS
from web.headers import ALWAYS

log = logging.getLogger("service")

# Bytes of a request's head, and of what nobody reads, such as chunked trailers.
MAX_HEAD = 64 * 1024
MAX_FIELDS = 100  # of a head; as many as Apache and gunicorn take
MAX_PIPELINED = 100  # requests that wait for the answer of the one before: each takes some 4 KB
MAX_CONNECTIONS = 4096
SHARE = 3 / 4  # of the process's descriptors; the rest is for the database and what tasks call
PIECE = 16 * 1024  # bytes; what is parsed before the bounds are checked

HEAD_SECONDS = 10.0  # for a whole head, from the connection's begin or the head's first byte
# Without a byte taken of an answer; a slow line's system takes them in large lumps.
UNREAD_SECONDS = 60.0
# For a refused client to read why; closed at once, what it still sends would undo the answer.
PARTING_SECONDS = 2.0
CHECK_SECONDS = 1.0
TELL_SECONDS = 60.0

SERVER = (b"server", b"uvicorn")

# So long may a stage last.
SECONDS = {"late": HEAD_SECONDS, "unread": UNREAD_SECONDS, "parting": PARTING_SECONDS}

TROUBLES = {
    "full": "closed the longest idle connections, or refused new ones, %d times: as many were open"
    " as this process may have. Unless it is a flood, allow more descriptors (ulimit -n) or run"
    " more processes (WEB_CONCURRENCY)",
    "late": "closed %d connections whose request was not whole in time. Slow clients, or a flood of"
    " half-sent requests: a proxy in front that buffers requests keeps both away",
    "large": "refused %d requests with too large a head or too many header fields. Find what grows:"
    " cookies, mostly",
    "unread": "cut %d connections whose clients did not read their answers",
}

Stage = tuple[str, int]


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's connection, with bounds."""

    unused = 0  # bytes since the parser last gave a head or a part of a body
    heads = 0
    is_done = False  # whatever comes now is not read
    earlier: Sequence[RequestResponseCycle] = ()  # requests under way when the next one came
    watch: "Watch"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.stage, self.since = self.current_stage(), self.loop.time()
        self.watch = Watch.over(self)
        if len(self.connections) > self.watch.limit and not self.watch.makes_room(self):
            self.is_done = True
            transport.write(self._problem(503, "Too many connections are open. Try again later."))
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self.is_done:
            return
        if len(data) > PIECE:
            for start in range(0, len(data), PIECE):
                self.data_received(data[start : start + PIECE])
            return
        self.unused += len(data)
        super().data_received(data)
        if self.unused > MAX_HEAD or len(self.headers or ()) > MAX_FIELDS:
            self.refuse_large()

    def on_headers_complete(self) -> None:
        self.unused = 0
        self.heads += 1
        if len(self.headers) > MAX_FIELDS:
            self.refuse_large()
        elif len(self.pipeline) >= MAX_PIPELINED:
            self.refuse(429, "Too many requests were sent before their answers.")
        if self.is_done:
            raise ValueError("refused")  # which the parser takes for a reason to stop
        if self.cycle is not None and not self.cycle.response_complete:
            self.earlier = [
                cycle for cycle in (*self.earlier, self.cycle) if not cycle.response_complete
            ]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.unused = 0
        super().on_body(body)

    def handle_websocket_upgrade(self) -> None:
        self.is_done = True  # from here on another protocol has the connection
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn tells only the newest request; an earlier one would write, which raises by now.
        for cycle in self.earlier:
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, msg)

    def refuse_large(self) -> None:
        """Refuse a head that is too large."""
        self.watch.troubles["large"] += not self.is_done
        most = f"{MAX_HEAD} bytes and {MAX_FIELDS} fields at most"
        self.refuse(431, f"A request's head may have {most}.")

    def refuse(self, status: int, detail: str) -> None:
        """Answer with a problem, after what is due before it; read no more, and close."""
        if self.is_done or self.transport.is_closing():
            return
        self.is_done = True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._part(status, detail)
        elif cycle.more_body and not self.pipeline:  # it is this request itself that is broken
            # It must write nothing more.
            cycle.disconnected, cycle.waiting_for_100_continue = True, False
            cycle.message_event.set()
            self._part(status, detail) if not cycle.response_started else self.transport.close()
        else:
            cycle.keep_alive = False  # its answer says that it is the last

    def _part(self, status: int, detail: str) -> None:
        self._unset_keepalive_if_required()
        self.transport.write(self._problem(status, detail))
        if self.transport.can_write_eof():
            self.transport.write_eof()  # the watch does the rest
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _problem(self, status: int, detail: str) -> bytes:
        headers = {"Connection": "close"}
        headers |= {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
        answer = problems.response(status, detail, headers=headers)
        fields = [*self.server_state.default_headers, *answer.raw_headers, *ALWAYS]
        first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()
        lines = [first, *(name + b": " + value for name, value in fields)]
        return b"\r\n".join([*lines, b"", bytes(answer.body)])

    def current_stage(self) -> Stage | None:
        """Return what the client must do next; the pair changes once it does a part of it."""
        if size := self.transport.get_write_buffer_size():
            return "unread", size
        if self.transport.is_closing():
            return None
        cycle = self.cycle
        is_its_turn = cycle is None or cycle.response_complete
        if self.is_done:
            return ("parting", 0) if is_its_turn or cycle.disconnected else None
        is_idle = self.timeout_keep_alive_task is not None
        return ("late", self.heads) if is_its_turn and not is_idle else None

    def idle_since(self) -> float | None:
        """Say since when the client has been waited for, if it is."""
        if (stage := self.current_stage()) is not None:
            return self.since if stage == self.stage else self.loop.time()
        if self.timeout_keep_alive_task is None or self.transport.is_closing():
            return None
        return self.timeout_keep_alive_task.when() - self.timeout_keep_alive

    def check(self, now: float) -> None:
        """End the connection if it has been in one stage for too long."""
        stage = self.current_stage()
        if stage != self.stage:
            self.stage, self.since = stage, now
        elif stage is not None and now - self.since > SECONDS[stage[0]]:
            self.watch.troubles[stage[0]] += 1
            if stage[0] == "late" and self.unused:
                self.refuse(408, f"The request's head was not whole after {HEAD_SECONDS:g} s.")
            else:
                self.transport.abort()


class Watch:
    """Checks a server's connections each second; logs each kind of trouble once a minute."""

    of: ClassVar[WeakKeyDictionary[ServerState, "Watch"]] = WeakKeyDictionary()

    def __init__(self, connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.connections, self.loop = connections, loop
        self.limit = _most()
        self.troubles: Counter[str] = Counter()
        self.told: dict[str, float] = {}
        self.check_all()

    @classmethod
    def over(cls, connection: GuardedProtocol) -> "Watch":
        """Return the watch over this connection's server; the first connection begins it."""
        if (watch := cls.of.get(connection.server_state)) is None:
            watch = cls.of[connection.server_state] = cls(connection.connections, connection.loop)
            _withhold_name(connection)
        return watch

    def check_all(self) -> None:
        """End what has been waited for too long, tell of it, and come back in a second."""
        self.loop.call_later(CHECK_SECONDS, self.check_all)
        now = self.loop.time()
        for connection in self.guarded():
            connection.check(now)
        for kind, text in TROUBLES.items():
            if self.troubles[kind] and now - self.told.get(kind, -TELL_SECONDS) >= TELL_SECONDS:
                log.warning(text, self.troubles.pop(kind))
                self.told[kind] = now

    def makes_room(self, newest: GuardedProtocol) -> bool:
        """Close the connection idle for longest; False if there is none but the newest."""
        self.troubles["full"] += 1
        idle = {each: since for each in self.guarded() if (since := each.idle_since()) is not None}
        longest = min(idle, key=idle.__getitem__, default=newest)
        if longest is newest:
            return False
        longest.transport.abort()
        return True

    def guarded(self) -> list[GuardedProtocol]:
        """List the connections but those that have become WebSockets."""
        return [each for each in self.connections if isinstance(each, GuardedProtocol)]


def _withhold_name(connection: GuardedProtocol) -> None:
    # uvicorn's own; another that somebody wants (--header) stays.
    for owner, name in (
        (connection.config, "encoded_headers"),
        (
            connection.server_state,
            "default_headers",
        ),
    ):
        setattr(owner, name, [each for each in getattr(owner, name) if each != SERVER])


def _most() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, int(descriptors * SHARE))


def _guarded(cls: type[HttpToolsProtocol], *args: object, **kwargs: object) -> HttpToolsProtocol:
    return object.__new__(GuardedProtocol if cls is HttpToolsProtocol else cls)


def guard() -> None:
    """Have uvicorn make guarded connections from now on.

    It has chosen its class before it loads an application, so that class makes the other's objects.
    """
    HttpToolsProtocol.__new__ = _guarded  # type: ignore[method-assign, assignment]
