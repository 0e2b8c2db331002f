"""A real SkyWalking collector on loopback, of the agent's own protocol classes."""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

import grpc
from skywalking.protocol.common.Command_pb2 import Commands
from skywalking.protocol.language_agent import JVMMetric_pb2_grpc, Meter_pb2_grpc, Tracing_pb2_grpc
from skywalking.protocol.logging import Logging_pb2_grpc
from skywalking.protocol.management import Management_pb2_grpc
from skywalking.protocol.profile import Profile_pb2_grpc

T = TypeVar("T")

STREAMS = 32  # each open stream of each agent holds a thread


class Collector:
    """What agents sent to `address`; a `hanging` one takes every call and answers none."""

    def __init__(self, *, hanging: bool = False, address: str = "127.0.0.1:0") -> None:
        self.segments: list[Any] = []
        self.logs: list[Any] = []
        self.meters: list[Any] = []
        self.instances: set[str] = set()
        self.calls = 0
        self._changed = threading.Condition()
        self._answering = threading.Event()
        if not hanging:
            self._answering.set()
        self._server = grpc.server(ThreadPoolExecutor(STREAMS, thread_name_prefix="collector"))
        self.address = f"127.0.0.1:{self._server.add_insecure_port(address)}"
        _add_services(self, self._server)
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answering.set()
        self._server.stop(grace=None).wait()

    def wait_for(self, found: Callable[[], T], seconds: float = 15) -> T:
        """Wait until `found` gives something true; raise AssertionError with all that came."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not (result := found()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"never received; there were:\n{self.everything()}")
                self._changed.wait(left)
            return result

    def named(self, operation: str) -> list[Any]:
        """Give the segments whose first span, the one without a parent, has this name."""
        return [segment for segment in self.segments if root(segment).operationName == operation]

    def segment(self, operation: str) -> Any:
        """Wait for a segment of this name."""
        return self.several(operation, 1)[0]

    def several(self, operation: str, count: int) -> list[Any]:
        """Wait for so many segments of this name."""
        self.wait_for(lambda: len(self.named(operation)) >= count)
        return self.named(operation)

    def segments_of(self, trace_id: str) -> list[Any]:
        return [segment for segment in self.segments if segment.traceId == trace_id]

    def log(self, text: str) -> Any:
        """Wait for a log line with this in its text."""
        return self.wait_for(
            lambda: [line for line in list(self.logs) if text in line.body.text.text]
        )[0]

    def meter(self, name: str, wanted: Callable[[Any], bool] = bool) -> Any:
        """Wait for a meter's value (of a histogram its counts by bucket) that is as wanted."""

        def found() -> list[Any]:
            told = [value_of(each) for each in list(self.meters) if name_of(each) == name]
            return [value for value in told if wanted(value)]

        return self.wait_for(found)[-1]

    def everything(self) -> str:
        """Give all that was received as one text, to look for what must not be in it."""
        return "\n".join(
            str(each) for each in [*self.segments, *self.logs, *sorted(self.instances)]
        )

    def receive(self, store: Callable[[Any], object], messages: Iterable[Any]) -> Commands:
        with self._changed:
            self.calls += 1
            self._changed.notify_all()
        self._answering.wait()
        for message in messages:
            with self._changed:
                store(message)
                self._changed.notify_all()
        return Commands()


def root(segment: Any) -> Any:
    """Give the segment's span that has no parent in it."""
    return next(span for span in segment.spans if span.parentSpanId == -1)


def name_of(meter: Any) -> str:
    """Give the name of a meter, of either kind."""
    return str(getattr(meter, str(meter.WhichOneof("metric"))).name)


def value_of(meter: Any) -> Any:
    """Give a meter's value, or a histogram's counts by bucket."""
    if meter.WhichOneof("metric") == "singleValue":
        return meter.singleValue.value
    return {each.bucket: each.count for each in meter.histogram.values if each.count}


def tags(span: Any) -> dict[str, str]:
    """Give the span's tags, or a log line's."""
    return {tag.key: tag.value for tag in getattr(span.tags, "data", span.tags)}


def seconds(span: Any) -> float:
    return float(span.endTime - span.startTime) / 1000


def error_of(span: Any) -> dict[str, str]:
    """Give what the span's only log says."""
    (entry,) = span.logs
    return {item.key: item.value for item in entry.data}


def _add_services(collector: Collector, server: Any) -> None:
    """Add every service that the agent calls; what is only answered is of no interest to a test."""

    def stream(store: Callable[[Any], object]) -> Callable[..., Commands]:
        return lambda _self, messages, _context: collector.receive(store, messages)

    def single(store: Callable[[Any], object]) -> Callable[..., Commands]:
        return lambda _self, message, _context: collector.receive(store, [message])

    def forget(message: Any) -> None:
        pass

    segments, instances = collector.segments, collector.instances
    services = [
        (
            Tracing_pb2_grpc,
            "TraceSegmentReportService",
            {
                "collect": stream(segments.append),
                "collectInSync": single(lambda batch: segments.extend(batch.segments)),
            },
        ),
        (Logging_pb2_grpc, "LogReportService", {"collect": stream(collector.logs.append)}),
        (
            Management_pb2_grpc,
            "ManagementService",
            {
                "reportInstanceProperties": single(
                    lambda told: instances.add(told.serviceInstance)
                ),
                "keepAlive": single(forget),
            },
        ),
        (
            Meter_pb2_grpc,
            "MeterReportService",
            {
                "collect": stream(collector.meters.append),
                "collectBatch": stream(lambda batch: collector.meters.extend(batch.meterData)),
            },
        ),
        (JVMMetric_pb2_grpc, "JVMMetricReportService", {"collect": single(forget)}),
        (
            Profile_pb2_grpc,
            "ProfileTask",
            {
                "getProfileTaskCommands": single(forget),
                "collectSnapshot": stream(forget),
                "reportTaskFinish": single(forget),
            },
        ),
    ]
    for module, name, methods in services:
        servicer = type(name, (getattr(module, f"{name}Servicer"),), methods)()
        getattr(module, f"add_{name}Servicer_to_server")(servicer, server)
