"""What stands before the whole application: who may come in, and the headers of every answer."""

from collections.abc import Awaitable, Collection, Iterable, Sequence

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards import problems
from web.headers import ALWAYS, NAMES, OVER_TLS
from web.hosts import Hosts
from web.origins import CHANGES_NOTHING, CrossOrigin, is_foreign

Field = tuple[bytes, bytes]

WRONG_HOST = "This service does not answer to that Host; ALLOWED_HOSTS says to which."
WRONG_ORIGIN = "A page of another origin sent this; CORS_ORIGINS says of which it may."


def put_before(app: Starlette, *, hosts: Collection[str], origins: Collection[str]) -> None:
    """Put the door before the application, and before its answers to bugs, too.

    Without `hosts` any is allowed, without `origins` none but our own. To be called before the
    application installs an `Afterwards`.
    """
    build = app.build_middleware_stack

    def build_behind() -> ASGIApp:
        inside = CrossOrigin(build(), origins) if origins else build()
        names = None if not hosts or "*" in hosts else Hosts(hosts)
        return Door(inside, names, {origin.encode() for origin in origins})

    app.build_middleware_stack = build_behind  # type: ignore[method-assign]


class Door:
    """Refuses other hosts, and changes that pages of other origins ask for."""

    def __init__(self, app: ASGIApp, hosts: Hosts | None, origins: Collection[bytes]) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = origins

    # Plain functions that pass on what others await: coroutines of their own cost twice as much.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer, or let in; all that is not HTTP is let in."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                # Not before: a middleware for proxies may say so only now.
                ours = OVER_TLS if scope["scheme"] == "https" else ALWAYS
                theirs = message.get("headers", ())
                for name, _ in theirs:
                    if name in NAMES:
                        ours = _unset(ours, theirs)
                        break
                message["headers"] = [*theirs, *ours]
            return send(message)

        app = self._app
        if self._hosts is not None and not self._hosts.allow(scope):
            app = problems.response(421, WRONG_HOST)
        elif scope["method"] not in CHANGES_NOTHING and is_foreign(scope["headers"], self._origins):
            app = problems.response(403, WRONG_ORIGIN)
        return app(scope, receive, send_with_headers)


def _unset(ours: Sequence[Field], theirs: Iterable[Field]) -> list[Field]:
    set_by_them = {name for name, _ in theirs}
    return [each for each in ours if each[0] not in set_by_them]
