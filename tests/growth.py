"""How a cost grows with its input, on a machine that may be busy with other things."""

import time
from collections.abc import Callable


def is_linear(work: Callable[[str], object], unit: str, size: int = 16_000) -> bool:
    """Tell whether four times the text, made of `unit`, costs under eight times the CPU.

    What is linear takes four times, what is quadratic sixteen.
    """
    small, large = ((unit * (length // len(unit) + 1))[:length] for length in (size, 4 * size))
    return _cost(work, large) < 8 * max(_cost(work, small), 0.0001)


def _cost(work: Callable[[str], object], text: str) -> float:
    costs = []
    for _ in range(5):
        began = time.thread_time()
        work(text)
        costs.append(time.thread_time() - began)
    return min(costs)
