"""What leaves the process through the agent: segments in batches, log lines with their ids, and neither with a secret.

`sky` is what `tracing` has imported of the agent.
"""

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

from afterwards.redaction import encodable, shortened, without_secrets
from afterwards.skywalking.guarded import guarded
from afterwards.skywalking.root_span import RootSpan
from afterwards.skywalking.segment_queue import SegmentQueue

BATCH, BATCH_SECONDS = (
    200,
    10.0,
)  # segments in one call, below 4 MB even if all failed; how long a call may take
AGENTS_LAYOUT = "%(asctime)s [%(threadName)s] %(levelname)s %(name)s - %(message)s"


def scrub(sky: Any) -> None:
    """Take the secrets out of all segments and log lines, whichever plugin made them, and send each segment once."""
    archive_segment, archive_log = sky.agent.archive_segment, sky.agent.archive_log

    def send_segment(segment: Any) -> None:
        if getattr(segment, "sent", False):
            return
        segment.sent = True
        if not isinstance(segment, RootSpan) or segment.logs:
            for span in segment.spans:
                _scrub_span(sky, span)
        archive_segment(segment)

    def send_log(data: Any) -> None:
        for tag in data.tags.data:
            tag.value = without_secrets(tag.value)
        _put_task_id(sky, data)
        archive_log(data)

    sky.agent.archive_segment = lambda segment: guarded(send_segment, segment)
    sky.agent.archive_log = lambda data: guarded(send_log, data)


def send_in_batches(sky: Any) -> None:
    """Send segments by the hundred in one call each, where the agent streams them one by one and drops most under load.

    What a collector did not take is kept, and sent again before anything else.
    """
    reporter: Any = getattr(
        getattr(sky.agent, "_SkyWalkingAgent__protocol", None), "traces_reporter", None
    )
    if not hasattr(reporter, "report_stub"):  # another protocol than gRPC
        return
    waiting, sky.agent._SkyWalkingAgent__segment_queue = (
        sky.agent._SkyWalkingAgent__segment_queue,
        SegmentQueue(sky.config.agent_trace_reporter_max_buffer_size),
    )
    while not waiting.empty():
        sky.agent.archive_segment(waiting.get())
    unsent: list[Any] = []

    def report(segments: Iterator[Any]) -> None:
        while True:
            unsent.extend(islice(segments, BATCH - len(unsent)))
            if not unsent:
                return
            reporter.report_stub.collectInSync(
                sky.SegmentCollection(segments=unsent), timeout=BATCH_SECONDS
            )
            unsent.clear()

    reporter.report = report


def make_log_reporter_harmless(sky: Any) -> None:
    """Keep the log reporter from drawing on the sampling budget, telling secrets, and failing whoever writes a line."""

    def log_context() -> Any:
        span = sky.SpanContext.peek()
        return span.context if span else sky.NoopContext()

    sky.sw_logging.get_context = log_context
    sky.sw_logging.sw_filter = lambda text: without_secrets(encodable(shortened(text)))
    handle = logging.Logger.handle

    def handle_guarded(self: logging.Logger, record: logging.LogRecord) -> None:
        guarded(handle, self, record)

    logging.Logger.handle = handle_guarded  # type: ignore[method-assign]


def _scrub_span(sky: Any, span: Any) -> None:
    for entry in span.logs:
        entry.items = [
            sky.LogItem(item.key, without_secrets(encodable(item.val))) for item in entry.items
        ]
        if (
            entry.timestamp * 1000 < span.start_time
        ):  # the agent's own logs bear the time of its import
            entry.timestamp = span.end_time / 1000
    if not span.kind.is_exit or isinstance(span, RootSpan):
        return
    span.peer = encodable(span.peer or "").rpartition("@")[2]
    for tag in span.iter_tags():
        tag.val = encodable(without_secrets(tag.val))
    if span.layer is sky.Layer.Http:  # sw_httpx names the span for the path
        method = "".join(tag.val for tag in span.iter_tags() if tag.key == "http.method")
        span.op = f"{method}:{span.peer}"


def _put_task_id(sky: Any, data: Any) -> None:
    span = sky.SpanContext.peek()
    task_id = getattr(span.context, "task_id", "") if span else ""
    if not task_id:
        return
    data.tags.data.add(key="task.id", value=task_id)
    if sky.config.agent_log_reporter_layout == AGENTS_LAYOUT:  # a user's own layout stays as it is
        line, newline, rest = data.body.text.text.partition("\n")
        data.body.text.text = f"{line} task={task_id}{newline}{rest}"
