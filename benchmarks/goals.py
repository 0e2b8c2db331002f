"""The budgets of design.md, and what was seen beside them; nothing is ever asserted."""

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple


class Goal(NamedTuple):
    """A figure that is wanted: `what` it is, the bound, and how the two figures are written."""

    what: str
    meets: Callable[[float, float], bool]
    bound: float
    form: str = "{:.2f}"


SIGNS: dict[Callable[[float, float], bool], str] = {operator.ge: ">=", operator.lt: "<"}

GOALS = {
    "durable": Goal("durable, untraced, against Starlette in memory", operator.ge, 0.6),
    "fastest": Goal("durable, untraced, against the fastest other queue", operator.ge, 2.0),
    "celery": Goal("durable, untraced, against the fastest Celery", operator.ge, 10.0),
    "traced": Goal("durable and traced, against Starlette in memory", operator.ge, 0.5),
    "tracing": Goal("durable, traced against untraced", operator.ge, 0.75),
    "received": Goal("durable, segments received", operator.ge, 1.0, "{:.1%}"),
    "accept": Goal("durable accept, p50 above the in-memory one", operator.lt, 0.5, "{:.3f} ms"),
    "started p50": Goal("answer to start, p50", operator.lt, 1.0, "{:.3f} ms"),
    "started p99": Goal("answer to start, p99", operator.lt, 10.0, "{:.3f} ms"),
    "backlog": Goal("backlog, one process, untraced", operator.ge, 5000, "{:,.0f} tasks/s"),
    # A pointer each, of 10^6.
    "waiting rows": Goal("memory for the rows that wait", operator.lt, 8.0, "{:.1f} MiB"),
    "sleeping": Goal("memory of a sleeping task, durable", operator.lt, 8.0, "{:.1f} KiB"),
    "asleep": Goal("`/test`, p99 with the tasks asleep", operator.lt, 10.0, "{:.2f} ms"),
}


def compare(seen: Mapping[str, float]) -> Iterator[str]:
    """Yield a table of what was seen beside what is wanted."""
    yield ""
    yield "| goal | wanted | seen | |"
    yield "|---|--:|--:|---|"
    for name, figure in seen.items():
        goal = GOALS[name]
        verdict = "reached" if goal.meets(figure, goal.bound) else "missed"
        wanted = f"{SIGNS[goal.meets]} {goal.form.format(goal.bound)}"
        yield f"| {goal.what} | {wanted} | {goal.form.format(figure)} | {verdict} |"
