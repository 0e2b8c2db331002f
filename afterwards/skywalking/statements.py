"""The statements of requests and tasks as exit spans, heard of through SQLAlchemy's events.

The agent's own plugins know neither SQLite nor today's asyncpg. What our own queue executes is told
by the mark that `afterwards.store.sql` puts on it, and left out: it is machinery.
"""

import functools
import re
import time
from typing import Any, NamedTuple
from weakref import WeakSet

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from afterwards.skywalking import life
from afterwards.skywalking.agent import Agent
from afterwards.skywalking.failure import kind_of
from afterwards.skywalking.guarded import guarded
from afterwards.store.sql import OWN

# As SkyWalking's pages name them, by SQLAlchemy's name.
NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
# Characters: of a statement that are looked at, and of those that are sent, as the OAP keeps them.
LOOKED_AT, SENT = 8_000, 2_000

# Names stay, and marks of values; comments go, and each literal value becomes a question mark.
_TOKEN = re.compile(
    r"""
    --[^\n]* | /\*.*?(?:\*/|\Z)
    | (?P<value>
        \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)
        | \b(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z) | '(?:[^']|'')*(?:'|\Z)
        | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)
        | \b\d[\w.]*
    )
    | (?P<kept>"(?:[^"]|"")*(?:"|\Z) | [^\W\d][\w$]* | [$:@]\w+)
    """,
    re.VERBOSE | re.DOTALL,
)

# Which are to be traced, and which are listened to.
_traced, _heard = WeakSet[Engine](), WeakSet[Engine]()


class Where(NamedTuple):
    """A database, as its spans tell of it: no credentials."""

    kind: str  # SQLAlchemy's name
    peer: str
    instance: str


def trace(engine: AsyncEngine | Engine) -> None:
    """Have the engine's statements be exit spans of the request or the task that executes them.

    Raises ValueError for an engine of neither Postgres nor SQLite. It may be called before the
    agent starts, and twice.
    """
    sync = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if sync.dialect.name not in NAMES:
        raise ValueError(f"engine: takes one of Postgres or SQLite, not {sync.dialect.name}")
    _traced.add(sync)
    if life.running():
        listen()


def listen() -> None:
    """Listen to the engines that are to be traced: not untraced, when it would cost a fifth."""
    for engine in _traced - _heard:
        _heard.add(engine)
        where = where_is(engine.dialect.name, engine.url)
        event.listen(engine, "before_cursor_execute", _begin)
        event.listen(engine, "after_cursor_execute", functools.partial(_end, where))
        event.listen(engine, "handle_error", functools.partial(_fail, where))


def where_is(kind: str, url: URL) -> Where:
    """Name the database: a server by its address, an SQLite file by its path."""
    name = url.database or ""
    if kind == "sqlite":
        return Where(kind, name or ":memory:", name)
    host = url.host or url.query.get("host") or "localhost"
    host = host if isinstance(host, str) else ",".join(host)
    return Where(kind, f"{host}:{url.port or 5432}", name)


@functools.lru_cache(maxsize=512)
def without_values(statement: str) -> str:
    """Give the statement without literal values and comments, on one line, within bounds."""

    def put(token: re.Match[str]) -> str:
        return "?" if token["value"] else token["kept"] or " "

    return " ".join(_TOKEN.sub(put, statement).split())[:SENT]


def _begin(connection: Any, cursor: Any, statement: str, values: Any, context: Any, _: Any) -> None:
    agent = life.running()
    if agent is not None and OWN not in context.execution_options and agent.spans():
        context.afterwards_began = time.time()


def _end(
    where: Where, connection: Any, cursor: Any, statement: str, values: Any, context: Any, _: Any
) -> None:
    if (began := context.__dict__.pop("afterwards_began", None)) is not None:
        guarded(_send, where, statement, began, None)


def _fail(where: Where, failure: Any) -> None:
    # Being cut off is a failure too: what took too long is what somebody looks for.
    context = failure.execution_context
    if context is not None and (began := context.__dict__.pop("afterwards_began", None)):
        guarded(_send, where, failure.statement, began, failure.original_exception)


def _send(where: Where, statement: str, began: float, error: BaseException | None) -> None:
    """Make the span when its end is known: one that was left open would adopt what comes next."""
    agent = life.running()
    if agent is None or not (spans := agent.spans()):
        return
    text = without_values(statement[:LOOKED_AT])
    name = f"{NAMES[where.kind]}/{text.partition(' ')[0][:20].upper()}"
    layer, component = agent.databases[where.kind]
    span = spans[-1].context.new_exit_span(name, where.peer, component)
    span.start()
    span.start_time = int(began * 1000)
    span.layer, span.peer = layer, where.peer  # also among calls to strangers
    for key, value in (
        ("db.type", NAMES[where.kind]),
        ("db.instance", where.instance),
        ("db.statement", text),
    ):
        span.tag(agent.new_tag(key, value))
    if error is not None:
        _put_error(agent, span, error)
    span.stop()


def _put_error(agent: Agent, span: Any, error: BaseException) -> None:
    # Not its text, which holds the values that it complains of.
    told = {"event": "error", "error.kind": kind_of(error)}
    if state := getattr(error, "sqlstate", None):
        told["message"] = f"SQLSTATE {state}"
    items = [agent.new_item(key, value) for key, value in told.items()]
    span.error_occurred = True
    span.logs = [agent.new_entry(timestamp=time.time(), items=items)]
