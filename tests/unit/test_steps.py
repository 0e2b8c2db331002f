"""The size of a step follows from the time that the last one took."""

import pytest

from afterwards.store import steps

pytestmark = pytest.mark.anyio


class Rows:
    """So many rows, of which each costs a step so many seconds; nothing is waited for."""

    def __init__(self, left: int, seconds: float) -> None:
        self.left, self.seconds = left, seconds
        self.sizes: list[int] = []

    async def step(self, most: int) -> tuple[int, float]:
        taken = min(most, self.left)
        self.left -= taken
        self.sizes.append(most)
        return taken, taken * self.seconds


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PAUSE", 0)


@pytest.mark.parametrize("seconds", [1e-6, 1e-5, 5e-5])
async def test_steps_grow_as_time_allows(seconds: float) -> None:
    rows = Rows(200_000, seconds)
    assert await steps.in_steps(rows.step) == 200_000
    assert max(rows.sizes) * seconds == pytest.approx(steps.STEP_SECONDS, rel=0.02)


async def test_slow_steps_are_the_smallest() -> None:
    rows = Rows(1000, 1.0)
    assert await steps.in_steps(rows.step) == 1000
    assert set(rows.sizes) == {steps.LEAST_STEP}


async def test_a_partial_step_is_the_last() -> None:
    rows = Rows(steps.LEAST_STEP - 1, 0.0)
    assert await steps.in_steps(rows.step) == steps.LEAST_STEP - 1
    assert len(rows.sizes) == 1
