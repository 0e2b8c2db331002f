"""The budgets of design.md, and what was seen beside them; nothing is ever asserted."""

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple


class Goal(NamedTuple):
    """A figure that is wanted: `what` it is, the bound, and how the figures are written.

    `before` is what it was when the goal was set.
    """

    what: str
    meets: Callable[[float, float], bool]
    bound: float
    form: str = "{:.2f}"
    before: str = ""


SIGNS: dict[Callable[[float, float], bool], str] = {
    operator.ge: ">=",
    operator.lt: "<",
    operator.le: "<=",
}
RATE = "{:,.0f}/s"

GOALS = {
    "durable": Goal("durable, SQLite, untraced", operator.ge, 0.60, before="0.35"),
    "traced": Goal("durable, SQLite, traced", operator.ge, 0.46, before="0.21"),
    "tracing": Goal("durable, traced against untraced", operator.ge, 0.80, before="0.61"),
    "received": Goal("durable, segments received", operator.ge, 1.0, "{:.1%}", "100.0%"),
    "in memory": Goal("in memory, untraced", operator.ge, 0.60, before="0.52"),
    "in memory, traced": Goal("in memory, traced", operator.ge, 0.45, before="0.27"),
    "postgres": Goal("durable, Postgres", operator.ge, 0.40, before="0.15 to 0.22"),
    "logged": Goal("durable, its log as it comes, against quiet", operator.ge, 0.9, before="0.6"),
    "rabbitmq": Goal("published over RabbitMQ", operator.ge, 0.30, before="0.11"),
    "redis": Goal("published over Redis", operator.ge, 0.30),
    "p99": Goal("durable, p99 against Starlette's", operator.le, 2.0, before="3.1"),
    "fastest": Goal("durable against the fastest other queue", operator.ge, 2.5, before="1.69"),
    "celery": Goal("durable against the fastest Celery", operator.ge, 8.0, before="4.7"),
    "celery worker": Goal(
        "a Celery worker process against plain Celery's, acknowledging late",
        operator.ge,
        0.80,
        before="0.17",
    ),
    "worker": Goal("`python -m afterwards worker`, Postgres", operator.ge, 5000, RATE),
    "through": Goal("D, 2 processes of 4 callers", operator.ge, 3500, RATE, "619/s"),
    "accept": Goal("durable accept, p50 above the in-memory one", operator.lt, 0.5, "{:.3f} ms"),
    "started p50": Goal("answer to start, p50", operator.lt, 1.0, "{:.3f} ms"),
    "started p99": Goal("answer to start, p99", operator.lt, 10.0, "{:.3f} ms"),
    "backlog": Goal("backlog, SQLite, one process", operator.ge, 22_500, RATE, "22,500/s"),
    "backlog, postgres": Goal("backlog, Postgres, one process", operator.ge, 10_000, RATE),
    # A pointer each, of 10^6.
    "waiting rows": Goal("memory for the rows that wait", operator.lt, 8.0, "{:.1f} MiB"),
    "sleeping": Goal("memory of a sleeping task, durable", operator.lt, 8.0, "{:.1f} KiB"),
    "asleep": Goal("`/test`, p99 with the tasks asleep", operator.lt, 10.0, "{:.2f} ms"),
}


def compare(seen: Mapping[str, float | None]) -> Iterator[str]:
    """Yield a table of what was seen beside what is wanted; None was not measured."""
    yield ""
    yield "| goal | before | wanted | seen | |"
    yield "|---|--:|--:|--:|---|"
    for name, figure in seen.items():
        goal = GOALS[name]
        wanted = f"{SIGNS[goal.meets]} {goal.form.format(goal.bound)}"
        verdict, shown = "not measured", "-"
        if figure is not None:
            verdict = "reached" if goal.meets(figure, goal.bound) else "missed"
            shown = goal.form.format(figure)
        yield f"| {goal.what} | {goal.before or '-'} | {wanted} | {shown} | {verdict} |"
