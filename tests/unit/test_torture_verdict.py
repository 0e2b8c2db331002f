"""The oracle of `make torture` finds what it is there to find, and nothing where all is well."""

from pathlib import Path

import pytest

from torture import facts, report
from torture.records import Book
from torture.verdict import COUNTED, FORBIDDEN

ACCEPTED, REFUSED = 202, 503
FIRST, SECOND, CHILD = 11, 12, 13  # pids


class Campaign:
    """Writes the files of a campaign, and lists what is found in them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._answers, self._events = Book(directory, "answers-0"), Book(directory, "events")
        self._diary, self._last = Book(directory, "diary-0"), Book(directory, "last")
        self._runs = 0

    def answer(
        self, status: int, shape: str = "quick", ids: str = "task-1", seconds: float = 0.0
    ) -> None:
        facts = {
            "token": "c0-1",
            "shape": shape,
            "seconds": seconds,
            "status": status,
            "ids": ids,
            "told": "",
        }
        self._answers.write(**facts, sent=1.0, got=2.0)

    def run(
        self,
        began: float,
        ended: float | None,
        *,
        pid: int = FIRST,
        part: int = 0,
        how: str = "done",
        task: str = "task-1",
    ) -> None:
        self._runs += 1
        self._diary.write(
            run=self._runs, part=f"c0-1/{part}", task=task, pid=pid, parent=FIRST, began=began
        )
        if ended is not None:
            self._diary.write(run=self._runs, how=how, ended=ended)

    def live(self, pid: int, *moments: float) -> None:
        for moment in moments:
            self._diary.write(pid=pid, alive=moment)

    def end(self, pid: int, at: float, *, asked: bool = True) -> None:
        self._events.write(what="ended", pid=pid, at=at, code=-9, asked=asked)

    def freeze(self, pid: int, began: float, ended: float) -> None:
        self._events.write(what="frozen", pid=pid, began=began, ended=ended)

    def state(self, state: str) -> None:
        """Note how the first task stands at last."""
        self._last.write(part="c0-1/0", state=state)

    def user(self) -> None:
        self._last.write(user="c0-1")

    def found(self) -> dict[str, int]:
        found = facts.load(self._directory)
        counts = {name: len(list(find(found))) for name, find in (FORBIDDEN | COUNTED).items()}
        assert report.has_failed(found) == any(counts[name] for name in FORBIDDEN)
        return {name: count for name, count in counts.items() if count}


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path)


def test_a_good_run_finds_nothing(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.run(2.1, 2.2)
    assert campaign.found() == {}


def test_accepted_but_undone_work_is_lost(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.run(2.1, 2.2, how="failed")
    assert campaign.found() == {"lost": 1}


def test_what_nobody_answered_is_not_lost(campaign: Campaign) -> None:
    campaign.answer(0)
    assert campaign.found() == {}


def test_an_unplanned_death_is_a_loss(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.state("dead")
    assert campaign.found() == {"lost": 1, "wrongly dead": 1}


def test_a_planned_death_is_no_loss(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED, "doomed")
    campaign.run(2.1, 2.2, how="failed")
    campaign.state("dead")
    assert campaign.found() == {}


def test_what_was_refused_must_not_run(campaign: Campaign) -> None:
    campaign.answer(REFUSED)
    campaign.run(2.1, 2.2)
    assert campaign.found() == {"refused, and yet run": 1}


def test_a_refusal_may_become_an_acceptance(campaign: Campaign) -> None:
    campaign.answer(REFUSED)
    campaign.answer(ACCEPTED)
    campaign.run(2.1, 2.2)
    assert campaign.found() == {}


def test_two_runs_at_a_time_overlap(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.run(2.0, 4.0)
    campaign.run(3.0, 5.0, pid=SECOND)
    assert campaign.found() == {"overlaps": 1}


def test_killed_runs_end_with_their_process(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.run(2.0, None)
    campaign.end(FIRST, 2.5)
    campaign.run(3.0, 5.0, pid=SECOND)
    assert campaign.found() == {}


def test_a_child_ends_with_its_life(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.run(2.0, None, pid=CHILD)
    campaign.live(CHILD, 2.1, 2.2)
    campaign.run(3.0, 5.0, pid=SECOND)
    assert campaign.found() == {}


def test_a_child_outliving_its_parent_overlaps(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.end(FIRST, 2.5)
    campaign.run(2.0, None, pid=CHILD)
    campaign.live(CHILD, 2.1, 3.2)
    campaign.run(3.0, 5.0, pid=SECOND)
    assert campaign.found() == {"overlaps": 1}


def test_children_count_as_their_frozen_parent(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.freeze(FIRST, 2.5, 15.0)
    campaign.run(2.0, 16.0, pid=CHILD)
    campaign.run(13.0, 17.0, pid=SECOND)
    assert campaign.found() == {"overlaps with a process that was frozen": 1}


def test_a_frozen_overlap_is_counted_apart(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.freeze(FIRST, 2.5, 15.0)
    campaign.run(2.0, 16.0)
    campaign.run(13.0, 17.0, pid=SECOND)
    assert campaign.found() == {"overlaps with a process that was frozen": 1}


def test_a_second_run_needs_a_kill(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.run(2.0, 3.0)
    campaign.run(4.0, 5.0, pid=SECOND)
    assert campaign.found().keys() == {
        "second runs",
        "of these though the process that ran it was left alone",
    }


def test_a_rerun_is_only_counted(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED)
    campaign.run(2.0, 3.0)
    campaign.end(FIRST, 3.1)
    campaign.run(4.0, 5.0, pid=SECOND)
    assert campaign.found() == {"second runs": 1}


def test_an_early_start_violates_the_order(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED, "in_order")
    campaign.run(2.0, 3.0, part=0)
    campaign.run(2.9, 3.5, part=1)
    campaign.run(3.6, 3.7, part=2)
    assert campaign.found() == {"order violated": 1}


def test_order_is_kept_where_each_waits(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED, "in_order")
    for part in range(3):
        campaign.run(2.0 + part, 3.0 + part, part=part)
    assert campaign.found() == {}


def test_order_is_kept_behind_the_dead(campaign: Campaign) -> None:
    campaign.answer(0, "in_order")
    campaign.state("dead")
    campaign.run(2.0, 3.0, part=1)
    assert campaign.found() == {"wrongly dead": 1}


def test_later_tasks_must_not_start_early(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED, "later", seconds=4.0)
    campaign.run(4.9, 5.0)
    assert campaign.found() == {"before its time": 1}


def test_one_key_has_one_task(campaign: Campaign) -> None:
    campaign.answer(ACCEPTED, ids="task-1")
    campaign.answer(ACCEPTED, ids="task-2")
    campaign.run(2.1, 2.2, task="task-1")
    assert campaign.found() == {"more than one task for a key": 1}


def test_a_taskless_user_is_half_done(campaign: Campaign) -> None:
    campaign.answer(0, "within")
    campaign.user()
    assert campaign.found() == {"users and tasks torn apart": 1}


def test_users_with_their_task_are_whole(campaign: Campaign) -> None:
    campaign.answer(201, "within")
    campaign.user()
    campaign.run(2.1, 2.2)
    assert campaign.found() == {}


def test_an_unasked_end_is_told_of(campaign: Campaign) -> None:
    campaign.end(FIRST, 3.0, asked=False)
    assert campaign.found() == {"processes that ended by themselves": 1}


def test_a_torn_line_is_no_fact(campaign: Campaign, tmp_path: Path) -> None:
    campaign.answer(REFUSED)
    with (tmp_path / "diary-9.0").open("w") as torn:
        torn.write('{"run": "9", "part": "c0-1/0", "ta')
    assert campaign.found() == {}
