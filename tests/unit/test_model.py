import re

from afterwards.model import Attempt, Task, new_task_id


async def _nothing() -> None:
    pass


def test_a_task_id_has_the_demos_form() -> None:
    assert re.fullmatch(r"task-\d{8}-\d{6}-\d{6}-[0-9a-f]{16}", new_task_id())


def test_task_ids_sort_by_time_and_are_all_different() -> None:
    ids = [new_task_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [each[:27] for each in ids] == sorted(each[:27] for each in ids)


def test_an_attempt_has_waited_since_its_task_was_made() -> None:
    task = Task(new_task_id(), "nothing", _nothing, is_async=True)
    assert Attempt(task, started_at=task.created_at + 3).waited == 3


def test_a_clock_set_back_gives_no_negative_wait() -> None:
    task = Task(new_task_id(), "nothing", _nothing, is_async=True)
    assert Attempt(task, started_at=task.created_at - 3600).waited == 0
