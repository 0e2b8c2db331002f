"""What a campaign's files say: answers, runs, ends, freezes, torments, and the last states."""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture.records import read

# So long after a freeze a process may not know yet that it was declared dead.
WAKING_SECONDS = 2.5


@dataclass(slots=True)
class Run:
    """One run of a task; it ended with its process where it did not end before.

    `pid` is the service's process, also for what ran in a child of that.
    """

    part: str
    task: str
    pid: int
    parent: int
    began: float
    ended: float = math.inf
    how: str = "killed"


@dataclass(slots=True)
class Asked:
    """One token: every answer that its requests got, and what they asked for."""

    token: str
    shape: str
    seconds: float
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def accepted(self) -> float | None:
        """The moment of the first answer that accepts."""
        got = (each["got"] for each in self.answers if 200 <= each["status"] < 300)
        return min(got, default=None)

    @property
    def is_refused(self) -> bool:
        """True where every answer said that nothing was done."""
        return all(each["status"] >= 500 for each in self.answers)


@dataclass(slots=True)
class Facts:
    asked: dict[str, Asked]
    runs: dict[str, list[Run]]  # by part, in the order of their starts
    ends: dict[int, dict[str, Any]]  # of processes, by pid
    torments: list[dict[str, Any]]
    states: dict[str, str]  # of the tasks that are not succeeded at last, by part
    users: set[str]
    freezes: list[dict[str, Any]]

    def was_frozen(self, run: Run, until: float = 0.0) -> bool:
        """Tell whether the run's process was frozen while it ran, or then until that moment."""
        return any(
            each["pid"] == run.pid
            and each["began"] < max(run.ended, until)
            and run.began < each["ended"] + WAKING_SECONDS
            for each in self.freezes
        )


def load(directory: Path) -> Facts:
    """Read the files of a campaign that has ended."""
    asked: dict[str, Asked] = {}
    for answer in read(directory, "answers-"):
        new = Asked(answer["token"], answer["shape"], answer["seconds"])
        asked.setdefault(new.token, new).answers.append(answer)
    events = list(read(directory, "events"))
    ends = {each["pid"]: each for each in events if each["what"] == "ended"}
    last = list(read(directory, "last"))
    return Facts(
        asked=asked,
        runs=_runs(directory, {pid: each["at"] for pid, each in ends.items()}),
        ends=ends,
        torments=[each for each in events if each["what"] == "torment"],
        states={each["part"]: each["state"] for each in last if "part" in each},
        users={each["user"] for each in last if "user" in each},
        freezes=[each for each in events if each["what"] == "frozen"],
    )


def _runs(directory: Path, ends: dict[int, float]) -> dict[str, list[Run]]:
    by_id: dict[str, Run] = {}
    late, last_seen = [], dict[int, float]()
    for line in read(directory, "diary-"):
        if "part" in line:
            fields = ("part", "task", "pid", "parent", "began")
            by_id[line["run"]] = Run(*(line[each] for each in fields))
        elif "alive" in line:
            last_seen[line["pid"]] = line["alive"]
        else:
            late.append(line)
    for line in late:
        by_id[line["run"]].ended, by_id[line["run"]].how = line["ended"], line["how"]
    runs = defaultdict(list)
    for run in sorted(by_id.values(), key=lambda run: run.began):
        end = ends.get(run.pid) or max(run.began, last_seen.get(run.pid, math.inf))
        run.ended = min(run.ended, end)
        run.pid = run.pid if run.pid in ends else run.parent
        runs[run.part].append(run)
    return dict(runs)
