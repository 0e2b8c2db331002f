"""Log lines on their way to SkyWalking: to which span they belong, and nothing that does harm."""

import logging
from types import SimpleNamespace
from typing import Any

from afterwards.attempt import current_task_id
from afterwards.mention import mentioned
from afterwards.redaction import shortened, storable, without_secrets
from afterwards.skywalking.agent import Agent
from afterwards.skywalking.guarded import guarded
from afterwards.skywalking.root_span import Endpoint, RootSpan
from afterwards.skywalking.sw8 import parent_of

AGENTS_LAYOUT = "%(asctime)s [%(threadName)s] %(levelname)s %(name)s - %(message)s"


def report_lines(agent: Agent) -> None:
    """Let no log line use up what is sampled, tell a secret, or fail whoever writes it."""
    archive_log, handle = agent.core.archive_log, logging.Logger.handle

    def send(data: Any) -> None:
        data.endpoint = storable(data.endpoint)
        for tag in data.tags.data:
            tag.value = storable(without_secrets(tag.value))
        _put_task_id(agent, data)
        archive_log(data)

    def handle_guarded(self: logging.Logger, record: logging.LogRecord) -> None:
        guarded(handle, self, record)

    agent.log_reporter.get_context = lambda: _context(agent)
    agent.log_reporter.sw_filter = lambda text: storable(without_secrets(shortened(text)))
    agent.core.archive_log = lambda data: guarded(send, data)
    logging.Logger.handle = handle_guarded  # type: ignore[method-assign]


def _context(agent: Agent) -> Any:
    """Return what the reporter asks for a line's trace, segment, span and endpoint.

    It is no context of the agent's where there is none yet: that makes a span costly. There is no
    endpoint while a request's name is not known: the OAP makes one of every name.
    """
    if (carrier := mentioned.get()) is not None:
        return _context_of_mentioned(agent, carrier())
    span = agent.contexts.peek()
    if span is None:
        return agent.new_noop_context()
    if isinstance(span, RootSpan):
        return _line_in(span, span, span)
    context = span.context
    return _line_in(span, context.segment, getattr(context.primary_endpoint, "root", None))


def _line_in(span: object, segment: object, root: RootSpan | None) -> Any:
    endpoint = Endpoint(root) if root is not None and root.scope is None else None
    return SimpleNamespace(segment=segment, active_span=span, primary_endpoint=endpoint)


def _context_of_mentioned(agent: Agent, carrier: str) -> Any:
    parent = parent_of(carrier)
    if parent is None:
        return agent.new_noop_context()
    segment = SimpleNamespace(related_traces=[parent.trace_id], segment_id=parent.segment_id)
    span = SimpleNamespace(sid=parent.span_id)
    is_ours = parent.service == agent.config.agent_name
    endpoint = SimpleNamespace(get_name=lambda: parent.endpoint) if is_ours else None
    return SimpleNamespace(segment=segment, active_span=span, primary_endpoint=endpoint)


def _put_task_id(agent: Agent, data: Any) -> None:
    task_id = current_task_id.get()
    if not task_id:
        return
    data.tags.data.add(key="task.id", value=task_id)
    if agent.config.agent_log_reporter_layout == AGENTS_LAYOUT:  # a user's own stays as it is
        line, newline, rest = data.body.text.text.partition("\n")
        data.body.text.text = f"{line} task={task_id}{newline}{rest}"
