"""The tables of tasks and of the workers that run them, and the database's clock."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from afterwards.store.migrations import metadata

MICROSECONDS = 1_000_000

# A time is a count of microseconds since 1970 in UTC, by the clock of the database, so that
# machines whose clocks differ agree on what is due. Delays can be added to it in either dialect.


class clock(FunctionElement[int]):
    """Now, by the database's clock, in microseconds."""

    type = BigInteger()
    inherit_cache = True  # without it each use would be compiled anew


@compiles(clock, "sqlite")
def _sqlite_clock(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)"


@compiles(clock, "postgresql")
def _postgres_clock(element: Any, compiler: Any, **options: Any) -> str:
    # Not clock_timestamp(), which changes within a statement: no index can be searched for what is
    # due by that.
    return "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS BIGINT)"


tasks = Table(
    "tasks",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("arguments", String, nullable=False),  # JSON, by parameter
    Column("in_thread", Boolean, nullable=False),  # whether its function is a plain `def`
    Column("carrier", String, nullable=False),
    Column("state", String, nullable=False),
    Column(
        "attempt", Integer, nullable=False
    ),  # how many have been started, but for those that do not count
    Column("max_attempts", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("worker", String),  # who runs it, or ran it last
    Column("created_at", BigInteger, nullable=False),
    Column("run_at", BigInteger, nullable=False),
    # When a broker is to be told of a waiting task (again). The default is for rows of a version
    # that knew no broker.
    Column("hand_off_at", BigInteger, nullable=False, server_default="0"),
    Column("follows", String),  # the id of the task that must have ended before this one is due
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("result", String),  # JSON
    Column("error_kind", String),
    Column("error_message", String),
)

# As text, not as parameters: a planner uses a partial index only where it can see that the
# condition is the index's.
IS_WAITING = text("tasks.state IN ('queued', 'retrying') AND tasks.follows IS NULL")
# Waits, in words that only one index has: a planner whose statistics are of a moment when nothing
# waited takes all indexes of what waits for empty, so that any would do, and sorts a whole backlog
# for one row.
IS_NEXT = text("coalesce(tasks.follows, tasks.state) IN ('queued', 'retrying')")
IS_FOLLOWING = text("tasks.follows IS NOT NULL")
IS_RUNNING = text("tasks.state = 'running'")
IS_PRUNED = text("tasks.state IN ('succeeded', 'cancelled')")


def _index(name: str, condition: str, *columns: Column[Any]) -> Index:
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


# Each index holds only the rows that its question is about, so that a million settled rows cost a
# claim nothing.
_index(
    "tasks_next",
    "coalesce(follows, state) IN ('queued', 'retrying')",
    *(tasks.c.in_thread, tasks.c.crashes, tasks.c.name, tasks.c.run_at),
)
_index("tasks_to_hand_off", "state IN ('queued', 'retrying')", tasks.c.hand_off_at)
_index("tasks_following", "follows IS NOT NULL", tasks.c.follows)
_index("tasks_running", "state = 'running'", tasks.c.worker)
_index("tasks_pruned", "state IN ('succeeded', 'cancelled')", tasks.c.finished_at)

answers = Table(
    "answers",
    metadata,
    Column("key", String, primary_key=True),  # a client's Idempotency-Key
    Column("fingerprint", String, nullable=False),  # of the request that it came with
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("status", Integer),  # none until the answer is known
    Column("headers", String),  # JSON; until then the ids of the tasks
    Column("body", LargeBinary),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String, primary_key=True),
    Column(
        "beats", BigInteger, nullable=False
    ),  # counted, not timed: no clock can make a live worker look dead
)
