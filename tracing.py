"""Sets up SkyWalking's agent, and wraps each attempt at a task in its own span.

What differs from the agent's own FastAPI plugin, which patches any Starlette, and why:

1. A request's entry span ends with the last byte of its answer, not with its background tasks.
2. An attempt at a task is a segment of its own that refers to the span which enqueued the task: the
   request's, or another task's. The reference is text, so that it can be stored with the task and
   used hours later in another process.
3. A span is named for its route, so that ids in paths make no endpoints; unmatched paths share one
   name.
4. What a client sends as `sw8` is untrusted: a good one of `SW8_TRUSTED` is continued, any other is
   as good as none.
5. A request starts with no active span: one left by the connection's previous request would adopt
   it (uvicorn#3158).
6. Spans and log lines lose what may be a secret on their way out, whichever plugin made them.
7. The agent gets 3 s to send what it has when the service stops, in a thread that cannot hold the
   process.
8. The agent's complaints are single lines in the service's own log.
9. The library's lines about a task that no attempt runs, such as a rescue, bear the task's trace.
"""

from contextlib import AbstractContextManager

from afterwards.model import Attempt
from afterwards.skywalking import SkyWalking
from afterwards.skywalking.trust import PRIVATE
from settings import settings

skywalking = SkyWalking()


def start(*, has_broker: bool = False, is_consumer: bool = False) -> None:
    """Start the agent, if its collector is set; it reads all other SW_* itself."""
    skywalking.collector = settings.sw_agent_collector_backend_services
    skywalking.profile_active = settings.sw_agent_profile_active
    networks = settings.sw8_trusted
    skywalking.trusted = PRIVATE if networks is None else networks
    skywalking.worker_name, skywalking.host = settings.sw_worker_name, settings.dyno
    skywalking.start(has_broker=has_broker, is_consumer=is_consumer)


stop, status, trace_id = skywalking.stop, skywalking.status, skywalking.trace_id

# The middleware that gives each request its entry span, and the request's trace context for its
# tasks; with None that of the task which runs here, for those that it enqueues.
entry_spans, carrier = skywalking.entry_spans, skywalking.carrier


def attempt(attempt: Attempt, *, is_consumed: bool = False) -> AbstractContextManager[None]:
    """Wrap an attempt at a task in its own span, under the request or task that enqueued it.

    It is a local span, or where a broker told of the task an entry span below `publication`'s. It
    says which task and which attempt it is, how long the task waited, how the attempt ended, and if
    it failed where.
    """
    return skywalking.attempt(attempt, is_consumed=is_consumed)


# What makes exit spans of the statements of another engine than `Afterwards.database`.
trace_statements = skywalking.trace_statements

# What hears how the queue stands, for the meters.
tell = skywalking.tell

# What surrounds the publication of a task to the broker: an exit span.
publication = skywalking.publication
