"""The segments of tasks: one for each attempt, and one for each publication to a broker."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from afterwards.brokers import Message
from afterwards.model import Attempt, Outcome
from afterwards.redaction import encodable
from afterwards.skywalking.agent import Agent, Shape
from afterwards.skywalking.guarded import guarded
from afterwards.skywalking.root_span import RootSpan

UNSAMPLED = "0"  # the carrier of what is not traced; its tasks must not be traced either
CUT_OFF = (Outcome.TIMED_OUT, Outcome.CANCELLED, Outcome.RELEASED)


class AttemptSpan(AbstractContextManager[None]):
    """Surrounds an attempt with a segment under the span that the task's carrier names."""

    __slots__ = ("agent", "attempt", "before", "began", "shape", "span")

    def __init__(self, agent: Agent, attempt: Attempt, shape: Shape) -> None:
        self.agent = agent
        self.attempt = attempt
        self.shape = shape

    def __enter__(self) -> None:
        self.began = self.agent.meters.begin()
        self.before = self.agent.spans()
        self.span = guarded(self._start)

    def __exit__(self, *_: object) -> None:
        if self.span is not None:
            guarded(self._end, self.span)
        self.agent.set_spans(self.before)
        self.agent.meters.end(self.attempt, self.began)

    def _start(self) -> RootSpan | None:
        agent, attempt, task = self.agent, self.attempt, self.attempt.task
        if task.carrier == UNSAMPLED or agent.contexts.ignore_check(task.name) is not None:
            agent.start_noop_span(task.id)
            return None
        tags = {
            "task.id": task.id,
            "task.name": task.name,
            "task.attempt": str(attempt.number),
            "task.wait_ms": str(int(attempt.waited * 1000)),
        }
        span = RootSpan(agent, encodable(task.name), self.shape, task.carrier, tags)
        span.task_id = task.id
        return span

    def _end(self, span: RootSpan) -> None:
        outcome, error = self.attempt.outcome, self.attempt.error
        span.tags["task.outcome"] = (outcome or "")[:]
        if outcome in (Outcome.FAILED, Outcome.TIMED_OUT) and error is not None:
            span.fail(error)
        if not span.stop() and outcome in CUT_OFF:
            # A thread that nothing can stop still has a span open, perhaps for ever; the segment
            # does not wait for it.
            self.agent.core.archive_segment(span.context.segment)


@contextmanager
def publication_span(agent: Agent, message: Message, address: str) -> Iterator[str]:
    """Surround a publication with an exit span, and give the carrier that travels with it."""
    span = guarded(_start_publication, agent, message, address)
    try:
        yield (span and guarded(span.written, address)) or message.carrier
    except BaseException as error:
        if span:
            guarded(span.fail, error)
        raise
    finally:
        if span:
            guarded(span.stop)


def _start_publication(agent: Agent, message: Message, address: str) -> RootSpan | None:
    if message.carrier == UNSAMPLED:
        return None
    name = f"Celery/{encodable(message.name)}"
    tags = {"task.id": message.id, "task.name": message.name, "mq.broker": address}
    span = RootSpan(agent, name, agent.publication, message.carrier, tags)
    span.peer = address
    return span
