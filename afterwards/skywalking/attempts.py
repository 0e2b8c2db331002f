"""The segments of tasks: one for each attempt, and one for each publication to a broker."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from afterwards.brokers import Message
from afterwards.mention import mentioned
from afterwards.model import Attempt, Delivery, Outcome
from afterwards.redaction import storable
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
        if task.crashes:
            tags["task.crashes"] = str(task.crashes)
        if task.delivery is not None:
            tags |= _tags_of(task.delivery, task.name, attempt.started_at)
        span = RootSpan(agent, storable(task.name), self.shape, task.carrier, tags)
        span.task_id = task.id
        if task.rescued_from:
            span.tell({"event": "rescued", "message": f"rescued from {task.rescued_from}"})
        return span

    def _end(self, span: RootSpan) -> None:
        outcome, error = self.attempt.outcome, self.attempt.error
        # What is said of the attempt once it has ended belongs to it still.
        mentioned.set(span.written)
        span.tags["task.outcome"] = (outcome or "")[:]
        if outcome in (Outcome.FAILED, Outcome.TIMED_OUT) and error is not None:
            span.fail(error)
        if not span.stop() and outcome in CUT_OFF:
            # A thread that nothing can stop still has a span open, perhaps for ever; the segment
            # does not wait for it.
            self.agent.core.archive_segment(span.context.segment)


def _tags_of(delivery: Delivery, name: str, now: float) -> dict[str, str]:
    """Return what SkyWalking's page of the broker is made of."""
    tags = {"mq.queue": delivery.queue, "mq.topic": name}
    if delivery.published_at is not None:  # by another machine's clock
        tags["transmission.latency"] = str(max(0, int((now - delivery.published_at) * 1000)))
    return tags


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
    name = f"Celery/{storable(message.name)}"
    tags = {"task.id": message.id, "task.name": message.name, "mq.broker": address}
    tags |= {"mq.queue": message.queue, "mq.topic": message.name}
    span = RootSpan(agent, name, agent.publication, message.carrier, tags)
    span.peer = address
    return span
