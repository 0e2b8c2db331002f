import re

from afterwards.model import Attempt, Task, new_task_id


async def _nothing() -> None:
    pass


def test_task_ids_have_the_demos_form() -> None:
    assert re.fullmatch(r"task-\d{8}-\d{6}-\d{6}-[0-9a-f]{16}", new_task_id())


def test_distinct_task_ids_sort_by_time() -> None:
    ids = [new_task_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [each[:27] for each in ids] == sorted(each[:27] for each in ids)


def test_waiting_is_measured_since_task_creation() -> None:
    task = Task(new_task_id(), "nothing", _nothing, is_async=True)
    assert Attempt(task, started_at=task.created_at + 3).waited == 3


def test_backward_clocks_give_no_negative_wait() -> None:
    task = Task(new_task_id(), "nothing", _nothing, is_async=True)
    assert Attempt(task, started_at=task.created_at - 3600).waited == 0
