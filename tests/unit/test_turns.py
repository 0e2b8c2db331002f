import pytest

from afterwards.turns import Limit, Queue, Shares, Turns, limits_of


def queue(name: str, crashes: int = 0) -> Queue:
    return Queue(False, crashes, name)


def shared(waiting: dict[Queue, int], **free: int) -> dict[str, int]:
    """Share once among queues of so many waiting tasks, in this order."""
    shares = Shares({Limit(limit): count for limit, count in free.items()})
    shares.begin(waiting)
    got = {}
    for each, count in waiting.items():
        got[each.name] = min(count, shares.of(each))
        shares.take(each, got[each.name])
    return got


@pytest.mark.parametrize(
    ("waiting", "slots", "got"),
    [
        ({"only": 1000}, 10, {"only": 10}),
        ({"many": 1000, "few": 2}, 10, {"many": 5, "few": 2}),
        ({"few": 2, "many": 1000}, 10, {"few": 2, "many": 8}),
        ({"a": 9, "b": 9, "c": 9}, 2, {"a": 1, "b": 1, "c": 0}),
        ({"a": 9}, 0, {"a": 0}),
    ],
)
def test_what_is_left_is_shared_equally(
    waiting: dict[str, int], slots: int, got: dict[str, int]
) -> None:
    assert shared({queue(name): count for name, count in waiting.items()}, slots=slots) == got


def test_suspects_take_slots_within_their_limit() -> None:
    waiting = {queue("suspect", 1): 100, queue("fresh"): 100}
    assert shared(waiting, slots=20, suspects=4) == {"suspect": 4, "fresh": 16}
    assert shared(waiting, slots=4, suspects=4) == {"suspect": 2, "fresh": 2}
    assert shared(waiting, slots=20) == {"suspect": 0, "fresh": 20}


def test_what_runs_alone_takes_no_slot() -> None:
    waiting = {queue("alone", 2): 100, queue("too", 7): 100, queue("fresh"): 100}
    assert shared(waiting, slots=5, alone=1) == {"alone": 1, "too": 0, "fresh": 5}


@pytest.mark.parametrize(
    ("crashes", "limit"),
    [(0, Limit.SLOTS), (1, Limit.SUSPECTS), (2, Limit.ALONE), (9, Limit.ALONE)],
)
def test_crashes_decide_a_tasks_limits(crashes: int, limit: Limit) -> None:
    assert limit in limits_of(crashes)


def test_who_was_served_last_comes_last() -> None:
    turns, served = Turns(), []
    queues = [queue(name) for name in ("c", "a", "b")]  # the longest waiting first
    for _ in range(6):
        first = turns.order(queues)[0]
        turns.serve(first)
        served.append(first.name)
    assert served == ["c", "a", "b"] * 2
    assert turns.order([*queues, queue("new")])[0].name == "new"
