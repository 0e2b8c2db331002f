"""A campaign's table in Markdown, and what was found, with what was being done just then."""

from collections import Counter
from collections.abc import Iterator

from torture import verdict
from torture.facts import Facts
from torture.shapes import SHAPES
from torture.verdict import COUNTED, FORBIDDEN, Finding

SHOWN = 5  # findings of one kind
# A torment may show so long afterwards: a silence is noticed after ten seconds.
BEFORE_SECONDS = 12.0


def table(facts: Facts, title: str) -> Iterator[str]:
    """Return the table's lines."""
    yield f"| {title} | |"
    yield "|---|--:|"
    torments = Counter(each["name"] for each in facts.torments)
    yield f"| {', '.join(torments)} | {', '.join(map(str, torments.values()))} |"
    answers = (answer for asked in facts.asked.values() for answer in asked.answers)
    statuses = Counter(answer["status"] for answer in answers)
    yield f"| requests | {sum(statuses.values()):,} |"
    accepted = [asked for asked in facts.asked.values() if asked.accepted]
    yield f"| accepted | {len(accepted):,} |"
    yield f"| refused | {sum(asked.is_refused for asked in facts.asked.values()):,} |"
    yield f"| requests without an answer | {statuses[0]:,} |"
    yield f"| tasks accepted | {sum(SHAPES[asked.shape].parts for asked in accepted):,} |"
    yield f"| runs | {sum(map(len, facts.runs.values())):,} |"
    for name, find in FORBIDDEN.items():
        yield f"| **{name}** | **{sum(1 for _ in find(facts)):,}** |"
    for name, find in COUNTED.items():
        yield f"| {name} | {sum(1 for _ in find(facts)):,} |"
    yield f"| longest from accepted to started | {verdict.start_delay(facts):.1f} s |"
    rescue = verdict.rescue_delay(facts)
    yield f"| longest from a process's end to the next start of what it ran | {rescue:.1f} s |"


def findings(facts: Facts) -> Iterator[str]:
    """Tell of what was found, kind by kind."""
    for name, find in (FORBIDDEN | COUNTED).items():
        found = list(find(facts))
        if found and find is not verdict.second_runs:
            yield f"\n{name}: {len(found)}"
            blamed = dict(Counter(_blame(facts, each) for each in found))
            yield f"  in the {BEFORE_SECONDS:g} s before: {blamed}"
            for each in found[:SHOWN]:
                yield f"  {each.what} at {each.at:.2f}: {each.told}"


def has_failed(facts: Facts) -> bool:
    """Tell whether anything forbidden was found."""
    return any(True for find in FORBIDDEN.values() for _ in find(facts))


def _blame(facts: Facts, finding: Finding) -> str:
    """Name what was being done at that moment, or else what had last been done."""
    at = finding.at
    past = [each for each in facts.torments if at - each["ended"] < BEFORE_SECONDS]
    near = [each for each in past if each["began"] <= at + 1 and at - each["ended"] < 1]
    chosen = near or [each for each in past if at >= each["ended"]][-1:]
    return " + ".join(sorted({each["name"] for each in chosen})) or "nothing"
