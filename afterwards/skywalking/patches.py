"""What is changed in the agent, so that segments leave in batches, and nothing with a secret."""

from types import SimpleNamespace

from afterwards.redaction import storable, without_secrets
from afterwards.skywalking.agent import Agent
from afterwards.skywalking.exits import have_exit_spans_for_all
from afterwards.skywalking.guarded import guarded
from afterwards.skywalking.log_lines import report_lines
from afterwards.skywalking.names import SentSegment, Span
from afterwards.skywalking.root_span import RootSpan, new_id
from afterwards.skywalking.sending import send_in_batches


def apply(agent: Agent) -> None:
    """Change the agent, which has been started."""
    # uuid1 asks a daemon that is hardly ever there, and lets go of the interpreter's lock for it.
    agent.ids.uuid = SimpleNamespace(uuid1=new_id)
    _scrub(agent)
    if agent.config.agent_protocol == "grpc":
        send_in_batches(agent)
    have_exit_spans_for_all(agent)
    report_lines(agent)


def _scrub(agent: Agent) -> None:
    """Send each segment once, and no secret in it, whichever plugin made it."""
    archive_segment = agent.core.archive_segment

    def send_segment(segment: SentSegment | RootSpan) -> None:
        if getattr(segment, "sent", False):
            return
        segment.sent = True
        if not isinstance(segment, RootSpan) or segment.logs:
            for span in segment.spans:
                _scrub_span(agent, span)
        archive_segment(segment)

    agent.core.archive_segment = lambda segment: guarded(send_segment, segment)


def _scrub_span(agent: Agent, span: Span | RootSpan) -> None:
    for entry in span.logs:
        entry.items = [
            agent.new_item(item.key, storable(without_secrets(item.val))) for item in entry.items
        ]
        # The agent's own logs bear the time of its import.
        if entry.timestamp * 1000 < span.start_time:
            entry.timestamp = span.end_time / 1000
    if isinstance(span, RootSpan):
        return
    is_exit = span.kind.is_exit
    span.op, span.peer = storable(span.op), storable(span.peer or "").rpartition("@")[2]
    for tag in span.iter_tags():
        tag.val = storable(without_secrets(tag.val) if is_exit else tag.val)
    if is_exit and span.layer is agent.request.layer:  # sw_httpx names the span for the path
        method = "".join(tag.val for tag in span.iter_tags() if tag.key == "http.method")
        span.op = f"{method}:{span.peer}"
