"""Long work in short steps, so that whoever writes meanwhile waits for one step at most."""

import asyncio
from collections.abc import Awaitable, Callable

LEAST_STEP = 100  # rows, or pages: below that a step is mostly the way there and back
STEP_SECONDS = 0.02  # for which a step may hold other writers up, as near as its size can be chosen
PAUSE = 2  # for each second of a step, so many belong to others

# Does at most so much; returns how much was done, and for how many seconds it held others up.
Step = Callable[[int], Awaitable[tuple[int, float]]]


async def in_steps(step: Step) -> int:
    """Repeat the step until it finds less to do than it may, and return how much was done.

    The next step's size comes from the time that the last one took: no constant fits every disk and
    every row.
    """
    done, most = 0, LEAST_STEP
    while True:
        count, seconds = await step(most)
        done += count
        if count < most:
            return done
        await asyncio.sleep(PAUSE * seconds)
        most = max(LEAST_STEP, int(most * min(2.0, STEP_SECONDS / max(seconds, 1e-6))))
