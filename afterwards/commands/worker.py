"""`worker`: runs tasks without a web server, and ends as the platforms ask for it."""

import asyncio
import logging
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from types import FrameType

from afterwards import registry
from afterwards.app import Afterwards
from afterwards.commands import Complaint
from afterwards.commands.importing import find
from afterwards.watchdog import UNWINDING_SECONDS, ending_within

LINES = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

log = logging.getLogger("tasks")


def run(arguments: Namespace) -> int:
    """Run the tasks of `module:name` until a signal ends it; return the exit status."""
    afterwards = find(arguments.path)
    if afterwards.broker is not None:
        raise Complaint(
            f"{arguments.path} has a broker, so its workers are Celery's: start one with "
            "`celery -A celery_app worker`, where celery_app.py says `app = afterwards.celery()`"
        )
    _configure_logging()
    afterwards.run_tasks = True  # whatever the web processes do
    with ExitStack() as watchdogs, asyncio.Runner(loop_factory=_faster_loop()) as runner:
        return runner.run(Serving(afterwards, watchdogs).serve(arguments.path))


class Serving:
    """One worker's life: SIGTERM and Ctrl-C let what runs end, Ctrl-C once more cuts it off.

    SIGTERM may come several times without meaning more: platforms send it so.
    """

    def __init__(self, afterwards: Afterwards, watchdogs: ExitStack) -> None:
        self._afterwards = afterwards
        self._asked = asyncio.Event()
        self._watchdogs = watchdogs
        # As uvicorn's servers have them: `afterwards.server` looks for them.
        self.should_exit, self.force_exit = False, False

    async def serve(self, path: str) -> int:
        """Run tasks until a signal comes, and end; return the exit status."""
        self._loop = asyncio.get_running_loop()
        # Not the loop's own handlers, which wait for a task that blocks the loop.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)
        log.info("%s runs %d task functions; Ctrl-C ends it", path, len(registry.names()))
        await self._afterwards.start()
        await self._asked.wait()
        await self._afterwards.stop()
        return 128 + signal.SIGINT if self.force_exit else 0

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self.should_exit = True
            self._end_within(self._afterwards.drain_seconds + UNWINDING_SECONDS)
            said = "%s: claims no more tasks", signal.Signals(number).name
            # In a thread, because this may have interrupted the writing of another line.
            threading.Thread(target=log.info, args=said, daemon=True).start()
            self._loop.call_soon_threadsafe(self._asked.set)
        elif number == signal.SIGINT and not self.force_exit:
            self._end_within(UNWINDING_SECONDS)
            self.force_exit = True

    def _end_within(self, seconds: float) -> None:
        self._watchdogs.enter_context(ending_within(seconds))


def _faster_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    import uvloop  # here, because it may be absent; uvicorn takes it too

    return uvloop.new_event_loop


def _configure_logging() -> None:
    if logging.getLogger().handlers:  # the module's own
        return
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format=LINES)
    # It logs whole URLs, a webhook's secret with them.
    logging.getLogger("httpx").setLevel(logging.WARNING)
