"""What clients ask for: how many tasks a request has, and what is to become of them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of request; `seconds` is the longest that its tasks sleep, or wait to be due."""

    weight: int
    seconds: float = 0.0
    parts: int = 1
    is_ordered: bool = False
    is_later: bool = False
    adds_user: bool = False
    dies: bool = False  # its tasks end as dead


SHAPES = {
    "quick": Shape(30),
    "sleeping": Shape(15, seconds=3),
    "plain": Shape(10, seconds=0.05),
    "flaky": Shape(8),
    "doomed": Shape(2, dies=True),
    "in_order": Shape(10, seconds=0.1, parts=3, is_ordered=True),
    "several": Shape(10, seconds=0.05, parts=2),
    "later": Shape(5, seconds=4, is_later=True),
    "within": Shape(10, adds_user=True),
    "killer": Shape(0, dies=True),  # posted by a client of its own, one at a time
}


def parts_of(token: str, shape: str) -> Sequence[str]:
    """Name what each task of the request is called by in the diary."""
    return [f"{token}/{number}" for number in range(SHAPES[shape].parts)]
