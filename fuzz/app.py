"""The real service, which notes in the file `STALLS` for how long its event loop stood still.

Each line is the moment when a stall ended, its seconds, and the seconds of CPU that the loop's
thread used in it: on a busy machine a loop stands still for want of a core as well, and that is
nobody's fault.
"""

import asyncio
import os
import time

from starlette.types import Receive, Scope, Send

import asgi_app

PAUSE = 0.01
WORTH_NOTING = 0.02


class _Sampler:
    def __init__(self, path: str) -> None:
        self.file = open(path, "a", buffering=1)  # noqa: SIM115  # open as long as the process lives
        self.loop = asyncio.get_running_loop()
        self.wall, self.cpu = time.monotonic(), time.thread_time()
        self.tick()

    def tick(self) -> None:
        wall, cpu = time.monotonic(), time.thread_time()
        if (stall := wall - self.wall - PAUSE) > WORTH_NOTING:
            self.file.write(f"{wall} {stall} {cpu - self.cpu}\n")
        self.wall, self.cpu = wall, cpu
        self.loop.call_later(PAUSE, self.tick)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve as the service does; begin to sample with its lifespan."""
    if scope["type"] == "lifespan":
        _Sampler(os.environ["STALLS"])
    await asgi_app.app(scope, receive, send)
