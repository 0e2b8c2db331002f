"""The door to Celery for the processes that publish: its settings, and the broker."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from celery import Celery
from kombu.exceptions import KombuError
from kombu.utils.url import url_to_parts

from afterwards.brokers import BrokerUnavailable, Message
from afterwards.tracing import Tracing

log = logging.getLogger("tasks")

T = TypeVar("T")

CONNECT_SECONDS = 3.0  # a dead host must not hold up the next try
SOCKET_SECONDS = 10.0  # nor may one that fell silent
QUEUE = "tasks"
PORTS = {"amqp": 5672, "amqps": 5671, "redis": 6379, "rediss": 6379}


def address_of(url: str) -> str:
    """Return the broker's host:port, which holds no secret; of one that has no host its kind."""
    scheme, host, port, *_ = url_to_parts(url)
    return f"{host}:{port or PORTS.get(scheme, '')}".rstrip(":") if host else scheme


def make_app(url: str, *, longest: float) -> Any:
    """Make the Celery application; `longest` is the time limit (s) of the longest task."""
    if url.startswith("redis"):
        _bear_outages_of_redis()
        _bear_garbage_in_redis()
    app = Celery("tasks", broker=url, set_as_current=True)
    app.conf.update(
        task_default_queue=QUEUE,  # not "celery", which others on the same broker use
        task_acks_late=True,  # acknowledged means claimed, and ended
        # a process that dies before its claim leaves its message to another
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,  # what a busy worker would hoard, an idle one can run
        task_serializer="json",  # ids and names are all there is to say
        accept_content=["json"],  # pickle would let whoever reaches the broker run code
        result_backend=None,  # results are in the row
        task_ignore_result=True,
        task_track_started=False,  # the row says what runs
        task_store_eager_result=False,
        broker_connection_timeout=CONNECT_SECONDS,
        broker_connection_retry_on_startup=True,  # a worker may start before its broker
        broker_connection_max_retries=None,  # an outage may last longer than a hundred tries
        # a broker that restarts closes channels before connections
        broker_channel_error_retry=True,
        # a task needs no broker to end and be settled
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # on a busy machine a process may take more than 4 s to start
        worker_proc_alive_timeout=30.0,
        worker_hijack_root_logger=False,  # the service's log lines, with task and trace ids
        worker_redirect_stdouts=False,
        broker_transport_options=_transport_options(url, longest),
    )
    return app


def _bear_outages_of_redis() -> None:
    """Keep a worker alive when Redis goes away while it runs tasks.

    Celery closes the broken connection twice, and the second time kombu 5.7 looks for the server's
    address where there is none any more. Its AttributeError ends the worker; an error of the
    connection is what all callers expect.
    """
    from kombu.transport.redis import Channel  # here, because it needs the client of Redis
    from redis.exceptions import ConnectionError

    parameters = Channel._connparams

    def parameters_or_error(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.connection is None or self.connection.client is None:
            raise ConnectionError("the connection to Redis is closed")
        return parameters(self, *args, **kwargs)

    Channel._connparams = parameters_or_error


def _bear_garbage_in_redis() -> None:
    """Drop what no Celery has sent: kombu has taken it off the list, and would end the worker."""
    from kombu.transport.redis import Channel  # here, because it needs the client of Redis

    read = Channel._brpop_read

    def read_or_drop(self: Any, **options: Any) -> Any:
        try:
            return read(self, **options)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.error(
                "dropped a message that is no task (%s); who else writes to this Redis?",
                type(error).__name__,
            )
            return True

    Channel._brpop_read = read_or_drop


def _transport_options(url: str, longest: float) -> dict[str, Any]:
    match url.partition("://")[0]:
        case "amqp" | "amqps":
            # Without confirms: what the broker loses is published again.
            return {"read_timeout": SOCKET_SECONDS, "write_timeout": SOCKET_SECONDS}
        case "redis" | "rediss":
            return {
                "visibility_timeout": _above(longest),
                "socket_timeout": SOCKET_SECONDS,
                "socket_connect_timeout": CONNECT_SECONDS,
                "socket_keepalive": True,
            }
        case _:
            return {"visibility_timeout": _above(longest)}


def _above(longest: float) -> int:
    """Choose when (s) Redis and SQS deliver again: above the longest task, 12 h at most."""
    return int(min(43_200, max(3_600, 2 * longest)))


class _Stale(BrokerUnavailable):
    """A connection that was there already has failed."""


class CeleryBroker:
    """The broker behind `app`, as the web processes see it."""

    def __init__(self, app: Any, url: str, tracing: Tracing) -> None:
        self.address = address_of(url)
        self._app = app
        self._tracing = tracing
        self._connection: Any = None
        self._producer: Any = None

    def publish(self, batch: Sequence[Message]) -> None:
        try:
            self._connected(lambda: self._publish_all(batch))
        except _Stale:  # it may have been so since the last batch: then a new connection will do
            self._connected(lambda: self._publish_all(batch))

    def _connected(self, ask: Callable[[], T]) -> T:
        is_new = self._connection is None
        try:
            self._connect()
            return ask()
        except Exception as error:
            connection, self._connection = self._connection, None
            if not isinstance(error, (OSError, KombuError, *_errors_of(connection))):
                raise
            _drop(connection)
            unavailable = BrokerUnavailable if is_new else _Stale
            raise unavailable(str(error) or type(error).__name__) from None

    def is_empty(self) -> bool:
        return self._connected(lambda: int(self._declared().message_count)) == 0

    def _declared(self) -> Any:
        # Not passively, which fails where the broker has lost the queue itself; so do Celery's
        # workers declare it.
        return self._producer.channel.queue_declare(QUEUE, durable=True, auto_delete=False)

    def _connect(self) -> None:
        if self._connection is None:
            # Nobody would answer a heartbeat while there is nothing to publish.
            self._connection = self._app.connection_for_write(heartbeat=0)
            self._connection.ensure_connection(
                max_retries=1, interval_start=0, timeout=CONNECT_SECONDS
            )
            self._producer = self._app.amqp.Producer(self._connection)
            self._declared()

    def _publish_all(self, batch: Sequence[Message]) -> None:
        with self._producer.batch():
            for each in batch:
                sent = each._replace(queue=QUEUE)
                with self._tracing.publication(sent, self.address) as carrier:
                    self._publish(each, carrier)

    def _publish(self, each: Message, carrier: str) -> None:
        # Straight into the queue, by the part of Celery's protocol that is of use here: to have
        # Celery send it takes seven times as long, in a process that answers requests.
        self._producer.publish(
            json.dumps([[each.id], {}, {}]),
            content_type="application/json",
            content_encoding="utf-8",
            # The same id as the row's, so that Flower and the status page speak of the same.
            headers={"lang": "py", "task": each.name, "id": each.id, "argsrepr": repr([each.id])}
            | {"carrier": carrier, "published_at": int(time.time() * 1000)},
            correlation_id=each.id,
            exchange="",
            routing_key=QUEUE,
        )


def _errors_of(connection: Any) -> tuple[type[Exception], ...]:
    return (*connection.connection_errors, *connection.channel_errors) if connection else ()


def _drop(connection: Any) -> None:
    try:
        if connection is not None:
            connection.collapse()
    except Exception as error:  # it was broken already
        log.debug("closing the broken connection to the broker failed: %s", error)
