"""What is changed in the agent, so that segments leave in batches, and nothing with a secret."""

import logging
from types import SimpleNamespace
from typing import Any

from afterwards.redaction import encodable, shortened, without_secrets
from afterwards.skywalking.agent import Agent
from afterwards.skywalking.guarded import guarded
from afterwards.skywalking.names import Context, SentSegment, Span
from afterwards.skywalking.root_span import RootSpan, new_id
from afterwards.skywalking.sending import send_in_batches

AGENTS_LAYOUT = "%(asctime)s [%(threadName)s] %(levelname)s %(name)s - %(message)s"


def apply(agent: Agent) -> None:
    """Change the agent, which has been started."""
    # uuid1 asks a daemon that is hardly ever there, and lets go of the interpreter's lock for it.
    agent.ids.uuid = SimpleNamespace(uuid1=new_id)
    _scrub(agent)
    if agent.config.agent_protocol == "grpc":
        send_in_batches(agent)
    _make_log_reporter_harmless(agent)


def _scrub(agent: Agent) -> None:
    """Send each segment once, and no secret in it or in a log line, whichever plugin made it."""
    archive_segment, archive_log = agent.core.archive_segment, agent.core.archive_log

    def send_segment(segment: SentSegment | RootSpan) -> None:
        if getattr(segment, "sent", False):
            return
        segment.sent = True
        if not isinstance(segment, RootSpan) or segment.logs:
            for span in segment.spans:
                _scrub_span(agent, span)
        archive_segment(segment)

    def send_log(data: Any) -> None:
        for tag in data.tags.data:
            tag.value = without_secrets(tag.value)
        _put_task_id(agent, data)
        archive_log(data)

    agent.core.archive_segment = lambda segment: guarded(send_segment, segment)
    agent.core.archive_log = lambda data: guarded(send_log, data)


def _make_log_reporter_harmless(agent: Agent) -> None:
    """Let no log line use up what is sampled, tell a secret, or fail whoever writes it."""

    def log_context() -> Context:
        span = agent.contexts.peek()
        return span.context if span else agent.new_noop_context()

    agent.log_reporter.get_context = log_context
    agent.log_reporter.sw_filter = lambda text: without_secrets(encodable(shortened(text)))
    handle = logging.Logger.handle

    def handle_guarded(self: logging.Logger, record: logging.LogRecord) -> None:
        guarded(handle, self, record)

    logging.Logger.handle = handle_guarded  # type: ignore[method-assign]


def _scrub_span(agent: Agent, span: Span | RootSpan) -> None:
    for entry in span.logs:
        entry.items = [
            agent.new_item(item.key, without_secrets(encodable(item.val))) for item in entry.items
        ]
        # The agent's own logs bear the time of its import.
        if entry.timestamp * 1000 < span.start_time:
            entry.timestamp = span.end_time / 1000
    if isinstance(span, RootSpan) or not span.kind.is_exit:
        return
    span.peer = encodable(span.peer or "").rpartition("@")[2]
    for tag in span.iter_tags():
        tag.val = encodable(without_secrets(tag.val))
    if span.layer is agent.request.layer:  # sw_httpx names the span for the path
        method = "".join(tag.val for tag in span.iter_tags() if tag.key == "http.method")
        span.op = f"{method}:{span.peer}"


def _put_task_id(agent: Agent, data: Any) -> None:
    span = agent.contexts.peek()
    task_id = getattr(span.context, "task_id", "") if span else ""
    if not task_id:
        return
    data.tags.data.add(key="task.id", value=task_id)
    if agent.config.agent_log_reporter_layout == AGENTS_LAYOUT:  # a user's own stays as it is
        line, newline, rest = data.body.text.text.partition("\n")
        data.body.text.text = f"{line} task={task_id}{newline}{rest}"
