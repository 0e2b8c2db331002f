"""What the tasks of `bad_days_app` wrote into their diary: who ran what, from when until when."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass
class Run:
    """A line "start" of the diary and the line "end" that belongs to it, if there is one."""

    task: str
    pid: int
    began: float
    ended: float | None = None


def runs(diary: Path) -> list[Run]:
    found: dict[tuple[str, int, int], Run] = {}
    counts: dict[tuple[str, int, str], int] = defaultdict(int)
    for word, task, pid, moment in (line.split() for line in diary.read_text().splitlines()):
        number = counts[task, int(pid), word] = counts[task, int(pid), word] + 1
        if word == "start":
            found[task, int(pid), number] = Run(task, int(pid), float(moment))
        else:
            found[task, int(pid), number].ended = float(moment)
    return list(found.values())


def by_task(every: list[Run]) -> dict[str, list[Run]]:
    grouped: dict[str, list[Run]] = defaultdict(list)
    for each in sorted(every, key=lambda run: run.began):
        grouped[each.task].append(each)
    return grouped


def never_at_the_same_time(diary: Path, killed: dict[int, float]) -> None:
    """Assert that no two runs of a task overlap; one that was killed ended when its process was."""
    for task, mine in by_task(runs(diary)).items():
        for earlier, later in pairwise(mine):
            end = earlier.ended if earlier.ended is not None else killed[earlier.pid]
            assert end <= later.began, f"{task} ran twice at the same time: {earlier} and {later}"
