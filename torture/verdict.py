"""The oracle: compares clients' answers with what the diary says was run; no database."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from torture.facts import Asked, Facts, Run
from torture.shapes import SHAPES, parts_of


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that happened to a part of a request, or to a process, at a moment."""

    what: str
    at: float
    told: str = ""


def lost(facts: Facts) -> Iterator[Finding]:
    """Accepted, and neither done nor dead by plan."""
    for asked in facts.asked.values():
        for part in parts_of(asked.token, asked.shape) if asked.accepted else ():
            is_done = any(run.how == "done" for run in facts.runs.get(part, ()))
            if not is_done and not (SHAPES[asked.shape].dies and facts.states.get(part) == "dead"):
                now = facts.states.get(part, "not there")
                yield Finding(part, asked.accepted or 0.0, f"{asked.shape}, now {now}")


def refused_and_run(facts: Facts) -> Iterator[Finding]:
    """Answered 5xx, every time, and run all the same, or its user added."""
    for asked in facts.asked.values():
        if asked.is_refused:
            parts = parts_of(asked.token, asked.shape)
            runs = [run for part in parts for run in facts.runs.get(part, ())]
            if runs or asked.token in facts.users:
                yield Finding(asked.token, asked.answers[0]["sent"], _story(asked, runs))


def wrongly_dead(facts: Facts) -> Iterator[Finding]:
    """Dead, though it never took its process down nor always failed."""
    for part, state in facts.states.items():
        asked = facts.asked.get(part.split("/")[0])
        if state == "dead" and not (asked and SHAPES[asked.shape].dies):
            runs = facts.runs.get(part, [])
            yield Finding(part, runs[-1].began if runs else 0.0, _story(asked, runs))


def stuck(facts: Facts) -> Iterator[Finding]:
    """Still open when all should have been done."""
    for part, state in facts.states.items():
        if state not in ("dead", "cancelled"):
            runs = facts.runs.get(part, [])
            yield Finding(part, runs[-1].began if runs else 0.0, state)


def overlaps(facts: Facts) -> Iterator[Finding]:
    """One task run twice at a time, and by no process that was frozen."""
    return (each for each, was_frozen in _overlaps(facts) if not was_frozen)


def frozen_overlaps(facts: Facts) -> Iterator[Finding]:
    """One task run twice at a time, where one of the two processes had been frozen."""
    return (each for each, was_frozen in _overlaps(facts) if was_frozen)


def _overlaps(facts: Facts) -> Iterator[tuple[Finding, bool]]:
    for runs in facts.runs.values():
        for first, second in pairwise(runs):
            if second.began < first.ended and second.task == first.task:
                was_frozen = facts.was_frozen(first) or facts.was_frozen(second)
                yield Finding(first.part, second.began, _story(None, runs)), was_frozen


def disorder(facts: Facts) -> Iterator[Finding]:
    """Begun before the one before it had ended for good, and by no process that was frozen."""
    ordered = [each for each in facts.asked.values() if SHAPES[each.shape].is_ordered]
    for asked in ordered:
        for before, after in pairwise(parts_of(asked.token, asked.shape)):
            earlier, later = facts.runs.get(before, []), facts.runs.get(after, [])
            began = later[0].began if later else math.inf
            has_waited = all(run.ended <= began for run in earlier if not facts.was_frozen(run))
            is_dead = facts.states.get(before) == "dead"
            has_come_first = is_dead or any(run.began < began for run in earlier)
            if later and not (has_waited and has_come_first):
                yield Finding(after, began, _story(asked, [*earlier, *later]))


def early(facts: Facts) -> Iterator[Finding]:
    """Begun before the moment that it was to wait for."""
    for asked in facts.asked.values():
        if SHAPES[asked.shape].is_later:
            due = min(each["sent"] for each in asked.answers) + asked.seconds
            runs = facts.runs.get(parts_of(asked.token, asked.shape)[0], ())
            for run in runs:
                if run.began < due:
                    yield Finding(run.part, run.began, f"{due - run.began:.3f} s")


def doubled(facts: Facts) -> Iterator[Finding]:
    """One key, or one request, and more than one task for a part of it."""
    for part, runs in facts.runs.items():
        if len({run.task for run in runs}) > 1:
            yield Finding(part, runs[-1].began, _story(facts.asked.get(part.split("/")[0]), runs))
    for asked in facts.asked.values():
        accepted = {each["ids"] for each in asked.answers if 200 <= each["status"] < 300}
        if len(accepted) > 1:
            yield Finding(asked.token, asked.answers[-1]["got"], f"answered {accepted}")


def halves(facts: Facts) -> Iterator[Finding]:
    """A user without the task of the same transaction, or the task without the user."""
    for asked in facts.asked.values():
        if SHAPES[asked.shape].adds_user:
            runs = facts.runs.get(parts_of(asked.token, asked.shape)[0], [])
            if bool(runs) != (asked.token in facts.users):
                yield Finding(asked.token, asked.answers[0]["sent"], _story(asked, runs))


def second_runs(facts: Facts) -> Iterator[Finding]:
    """Begun again after it had been done."""
    for first, second in _again(facts):
        yield Finding(first.part, second.began)


def needless_runs(facts: Facts) -> Iterator[Finding]:
    """Begun again after it had been done, by a process that neither ended nor was frozen."""
    for first, second in _again(facts):
        end = facts.ends.get(first.pid)
        if not (facts.was_frozen(first, second.began) or (end and end["at"] < second.began)):
            yield Finding(first.part, second.began, _story(None, facts.runs[first.part]))


def _again(facts: Facts) -> Iterator[tuple[Run, Run]]:
    for runs in facts.runs.values():
        for first, second in pairwise(runs):
            if first.how == "done" and first.ended <= second.began:
                yield first, second


def own_ends(facts: Facts) -> Iterator[Finding]:
    """Processes that ended though nobody told them to."""
    for end in facts.ends.values():
        if not end["asked"]:
            yield Finding(f"pid {end['pid']}", end["at"], f"exit code {end['code']}")


def errors(facts: Facts) -> Iterator[Finding]:
    """Answers that neither accept, nor refuse in the service's own words."""
    for asked in facts.asked.values():
        for each in asked.answers:
            if each["status"] not in (0, 202, 201, 409, 503):
                yield Finding(asked.token, each["sent"], f"{each['status']} {each['told'][:300]}")


def start_delay(facts: Facts) -> float:
    """The longest time from an acceptance to the first start of what was due at once."""
    delays = [
        runs[0].began - asked.accepted
        for asked in facts.asked.values()
        if asked.accepted and not SHAPES[asked.shape].is_later
        if (runs := facts.runs.get(parts_of(asked.token, asked.shape)[0]))
    ]
    return max(delays, default=0.0)


def rescue_delay(facts: Facts) -> float:
    """The longest time from the end of a process to the next start of what it ran."""
    pairs = (pair for runs in facts.runs.values() for pair in pairwise(runs))
    delays = (again.began - first.ended for first, again in pairs if first.how == "killed")
    return max(delays, default=0.0)


def _story(asked: Asked | None, runs: list[Run]) -> str:
    answers = [f"{each['status']} at {each['got']:.2f}" for each in asked.answers] if asked else []
    told = [f"{run.how} {run.began:.2f}-{run.ended:.2f} by {run.pid}" for run in runs]
    return "; ".join([*([f"{asked.shape}"] if asked else []), *answers, *told])


# In the order of the table. A campaign in which any of the first kind is found has failed.
FORBIDDEN: dict[str, Callable[[Facts], Iterator[Finding]]] = {
    "lost": lost,
    "refused, and yet run": refused_and_run,
    "wrongly dead": wrongly_dead,
    "stuck": stuck,
    "overlaps": overlaps,
    "order violated": disorder,
    "before its time": early,
    "more than one task for a key": doubled,
    "users and tasks torn apart": halves,
    "answers of neither 2xx, 409 nor 503": errors,
}
COUNTED: dict[str, Callable[[Facts], Iterator[Finding]]] = {
    "second runs": second_runs,
    "of these though the process that ran it was left alone": needless_runs,
    "overlaps with a process that was frozen": frozen_overlaps,
    "processes that ended by themselves": own_ends,
}
