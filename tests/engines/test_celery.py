"""The door to Celery: what it is set to, and what publishing puts into a real broker."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from afterwards.brokers import BrokerUnavailable, Message
from afterwards.tracing import NoTracing
from tests import serving
from tests.brokers import Broker, free_port

celery = pytest.importorskip(
    "afterwards.brokers.celery", reason="pip install -r requirements-celery.txt"
)


class Carrying(NoTracing):
    @contextmanager
    def publication(self, message: Message, address: str) -> Iterator[str]:
        yield f"{message.carrier} over {address}"


def broker_at(url: str) -> Any:
    app = celery.make_app(url, longest=60)
    return celery.CeleryBroker(app, url, Carrying())


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://me:hunter2@host:1234/vhost", "host:1234"),
        ("amqps://me:hunter2@host", "host:5671"),
        ("redis://:hunter2@host/0", "host:6379"),
        ("sqs://key:hunter2@", "sqs"),
    ],
)
def test_brokers_are_named_without_their_secret(url: str, address: str) -> None:
    assert celery.address_of(url) == address


@pytest.mark.parametrize(("longest", "seconds"), [(60, 3_600), (7_200, 14_400), (86_400, 43_200)])
def test_redelivery_waits_for_the_longest_task(longest: float, seconds: int) -> None:
    for url in ("redis://host/0", "sqs://"):
        app = celery.make_app(url, longest=longest)
        assert app.conf.broker_transport_options["visibility_timeout"] == seconds


def test_workers_acknowledge_late_and_read_json() -> None:
    conf = celery.make_app("amqp://host", longest=60).conf
    assert (conf.task_acks_late, conf.worker_prefetch_multiplier, conf.accept_content) == (
        True,
        1,
        ["json"],
    )
    assert conf.task_ignore_result


@pytest.mark.parametrize("scheme", ["amqp://me:hunter2@", "redis://:hunter2@"])
def test_absent_brokers_are_told_without_password(scheme: str) -> None:
    with pytest.raises(BrokerUnavailable) as refused:
        broker_at(f"{scheme}127.0.0.1:{free_port()}").publish([])
    assert "hunter2" not in str(refused.value)


def test_stale_connections_are_made_anew(
    brokers: Callable[[str], Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery, "QUEUE", "test-of-staleness")
    broker = broker_at(brokers("rabbitmq").url)
    broker.publish([])
    # As a server or a firewall ends it that has tired of it.
    with broker._connection.connection.transport.sock as connected:
        connected.shutdown(socket.SHUT_RDWR)
        broker.publish([Message("task-0", "a_name", "")])
    serving.until(lambda: not broker.is_empty(), 10)
    broker._connection.release()


def test_batches_ask_redis_nothing_per_message(
    brokers: Callable[[str], Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery, "QUEUE", "test-of-batches")
    broker = broker_at(brokers("redis").url)
    broker.publish([])

    def asked() -> int:
        with broker._producer.channel.conn_or_acquire() as client:
            return int(client.info("stats")["total_reads_processed"])

    before = asked()
    broker.publish([Message(f"task-{number}", "a_name", "") for number in range(100)])
    assert asked() - before < 50
    assert not broker.is_empty()
    broker._connection.release()


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
def test_messages_carry_task_name_and_trace(
    brokers: Callable[[str], Broker], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery, "QUEUE", f"test-of-{kind}")
    broker = broker_at(brokers(kind).url)
    assert broker.is_empty()  # also where the queue is not there
    broker.publish([Message(f"task-{number}", "a_name", "a trace") for number in range(3)])
    broker.publish([])
    serving.until(lambda: not broker.is_empty(), 10)  # the server counts in its own time
    received = []
    with broker._connection.SimpleQueue(f"test-of-{kind}") as queue:
        for _ in range(3):
            message = queue.get(timeout=10)
            received.append(
                (message.headers["id"], message.headers["task"], message.headers["carrier"])
            )
            message.ack()
    carrier = f"a trace over {brokers(kind).address}"
    assert received == [(f"task-{number}", "a_name", carrier) for number in range(3)]
    broker._connection.release()
