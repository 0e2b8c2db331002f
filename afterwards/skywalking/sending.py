"""Segments on their way to the collector: gathered for a moment, and sent by the hundred."""

import threading
import time
from collections import deque
from queue import Full, Queue
from typing import Any

from afterwards.skywalking.agent import Agent
from afterwards.skywalking.guarded import guarded
from afterwards.skywalking.lone import segment_of
from afterwards.skywalking.root_span import RootSpan

# Segments in one call, below 4 MB even if all failed; how long a call may take; how long segments
# are gathered for it: to wake a thread for each costs more than the segment, and so does a call.
BATCH, BATCH_SECONDS, GATHER_SECONDS = 200, 10.0, 0.05
METHOD = "/skywalking.v3.TraceSegmentReportService/collectInSync"


class SegmentQueue:
    """What the agent uses of `queue.Queue`, without its locks."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._segments: deque[Any] = deque()

    def put(self, segment: Any, block: bool = False) -> None:
        """Add the segment; raise `Full` at once where there is no room."""
        if self.full():
            raise Full
        self._segments.append(segment)

    def take(self) -> list[Any]:
        """Take the oldest segments, as many as fit in a call."""
        return [self._segments.popleft() for _ in range(min(BATCH, len(self._segments)))]

    def put_back(self, batch: list[Any]) -> None:
        """Put what was taken before all others, room or not."""
        self._segments.extendleft(reversed(batch))

    def empty(self) -> bool:
        return not self._segments

    def full(self) -> bool:
        return len(self._segments) >= self._most

    def join(self) -> None:
        """Return at once: the agent asks when all has been sent."""


def send_in_batches(agent: Agent) -> None:
    """Have segments sent by the hundred in one call each: one by one, most are dropped under load.

    What a collector did not take is kept, and sent again before anything else.
    """
    core, one_at_a_time = agent.core, threading.Lock()  # the agent's thread, or at last `stop`'s
    wire, waiting = core._SkyWalkingAgent__protocol, core._SkyWalkingAgent__segment_queue
    collect, build = wire.channel.unary_unary(METHOD), wire.report_segment  # bytes as they are

    def built(segment: Any) -> bytes:
        """Have the agent build what has several spans, or logs."""
        alone, messages = Queue[Any](), list[Any]()
        alone.put(segment)
        wire.traces_reporter.report = messages.extend
        build(alone, block=False)
        return agent.new_batch(segments=messages).SerializeToString()

    def written(segment: Any) -> bytes:
        is_lone = isinstance(segment, RootSpan) and not segment.logs
        return guarded(segment_of if is_lone else built, segment) or b""

    def report(queue: SegmentQueue, block: bool = True) -> None:
        if block:
            time.sleep(GATHER_SECONDS)
        with one_at_a_time:
            while batch := queue.take():
                try:
                    collect(b"".join(map(written, batch)), timeout=BATCH_SECONDS)
                except Exception:
                    queue.put_back(batch)
                    wire.on_error()
                    raise

    wire.report_segment = report
    core._SkyWalkingAgent__segment_queue = SegmentQueue(
        agent.config.agent_trace_reporter_max_buffer_size
    )
    while not waiting.empty():
        core.archive_segment(waiting.get())
