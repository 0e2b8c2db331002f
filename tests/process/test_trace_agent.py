"""The agent's life in a real server: started, stopped, broken, its collector of no use."""

import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.collector import Collector, root, tags
from tests.serving import Load, Server, until

Serve = Callable[..., Server]


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, and nobody else can for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def tracing_of(server: Server) -> str:
    return str(httpx.get(f"{server.url}/health").json()["tracing"])


def traces_to(address: str) -> dict[str, str]:
    return {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": address, "SW_AGENT_LOG_REPORTER_LEVEL": "INFO"}


def test_without_collector_tracing_is_not_mentioned(serve: Serve) -> None:
    server = serve()
    assert tracing_of(server) == "off"
    server.stop()
    assert "kywalking" not in server.log().lower()


def test_a_collector_turns_tracing_on(serve: Serve, collector: Collector) -> None:
    server = serve(**traces_to(collector.address))
    assert tracing_of(server) == "on"
    collector.segment("GET:/health")
    assert "WARNING" not in server.log()


def test_an_absent_collector_costs_one_line(serve: Serve, nobody: str) -> None:
    server = serve(**traces_to(nobody), SLEEP_SECONDS="0.1")
    for _ in range(50):
        assert httpx.get(f"{server.url}/test").text == "ok"
    line = server.wait_for_log(r".*does not answer.*")[0]
    told = rf"ERROR   skywalking: SkyWalking's collector at {nobody} does not answer"
    assert re.search(told + r" \(UNAVAILABLE .*refused\); trying again in [\d.]+ s$", line)
    assert server.stop() < 5
    log = server.log()
    assert log.count("does not answer") <= 2
    assert "Traceback" not in log
    assert "WARNING skywalking" not in log
    assert len("".join(line for line in log.splitlines() if "kywalking" in line)) < 2000


def test_the_agents_lines_look_like_others(serve: Serve, nobody: str) -> None:
    server = serve(**traces_to(nobody), LOG_FORMAT="json")
    server.wait_for_log("does not answer")
    assert all(line.startswith("{") for line in server.log().splitlines() if "kywalking" in line)


def test_the_agents_lines_can_be_silenced(serve: Serve, nobody: str) -> None:
    server = serve(**traces_to(nobody), SW_AGENT_LOGGING_LEVEL="OFF")
    assert tracing_of(server) == "on"
    server.stop()
    assert " skywalking: " not in server.log()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_unanswered_calls_cannot_hold_the_process(serve: Serve, sign: int) -> None:
    with Collector(hanging=True) as hanging:
        server = serve(**traces_to(hanging.address))
        assert httpx.post(f"{server.url}/action").status_code == 202
        hanging.wait_for(lambda: hanging.calls)
        assert server.stop(sign) < 5
        assert "did not take the last segments within 3 s" in server.log()


def test_silent_connections_cannot_hold_the_process(
    serve: Serve,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = serve(**traces_to(f"127.0.0.1:{listener.getsockname()[1]}"))
        assert httpx.get(f"{server.url}/health").status_code == 200
        with listener.accept()[0]:
            assert server.stop() < 5


def test_answering_collectors_hold_no_process(serve: Serve, collector: Collector) -> None:
    server = serve(**traces_to(collector.address))
    assert httpx.post(f"{server.url}/action").status_code == 202
    assert server.stop() < 2
    assert collector.named("POST:/action")
    assert collector.named("log_action")
    assert "last segments" not in server.log()


def test_sw_python_keeps_one_entry_span(serve: Serve, collector: Collector) -> None:
    server = serve(command=["sw-python", "run", "uvicorn"], **traces_to(collector.address))
    assert tracing_of(server) == "on"
    task_id = httpx.post(f"{server.url}/action").headers["task-id"]
    entry, task = collector.segment("POST:/action"), collector.segment("log_action")
    assert (len(entry.spans), task.traceId) == (1, entry.traceId)
    assert collector.log("action: action").body.text.text.endswith(f"task={task_id}")
    server.stop()
    assert {root(segment).operationName for segment in collector.segments} == {
        "GET:/health",
        "POST:/action",
        "log_action",
    }
    assert len(collector.instances) == 1


def test_equally_named_workers_are_separate_instances(serve: Serve, collector: Collector) -> None:
    server = serve(
        args=["--workers", "2"], **traces_to(collector.address), SW_AGENT_INSTANCE_NAME="web.1"
    )
    try:
        names = collector.wait_for(lambda: len(collector.instances) == 2 and collector.instances)
        workers = re.findall(r"Started server process \[(\d+)\]", server.log())
        assert names == {f"web.1-{pid}" for pid in workers}
    finally:
        server.stop()  # a killed supervisor would leave its workers behind


@pytest.mark.parametrize(
    "body",
    [
        "raise ImportError('not here')",
        "raise RuntimeError('broken')",
        "import skywalking.nothing_here",
    ],
    ids=["absent", "broken", "in part"],
)
def test_broken_agents_cost_only_one_line(
    serve: Serve, tmp_path: Path, nobody: str, body: str
) -> None:
    fake = tmp_path / "packages" / "skywalking"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(body)
    server = serve(**traces_to(nobody), PYTHONPATH=str(fake.parent), SLEEP_SECONDS="0.01")
    assert tracing_of(server) == "broken"
    assert httpx.get(f"{server.url}/test").text == "ok"
    server.wait_for_log("background_sleep_task succeeded")
    assert server.stop() < 2
    assert len(re.findall("WARNING.*nothing is traced", server.log())) == 1
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SW_SAMPLE_N_PER_3_SECS", "many"),
        ("SW_AGENT_LOGGING_LEVEL", "loud"),
        ("SW_AGENT_LOG_REPORTER_LEVEL", "loud"),
    ],
)
def test_bad_agent_values_cost_one_line(serve: Serve, nobody: str, name: str, value: str) -> None:
    server = serve(**{**traces_to(nobody), name: value})
    assert tracing_of(server) == "broken"
    assert server.stop() < 2
    assert len(re.findall("WARNING.*nothing is traced", server.log())) == 1
    assert "Traceback" not in server.log()


def test_invalid_layouts_cost_only_the_reporter(serve: Serve, collector: Collector) -> None:
    server = serve(**traces_to(collector.address), SW_AGENT_LOG_REPORTER_LAYOUT="%(message")
    assert tracing_of(server) == "on"
    collector.segment("GET:/health")
    assert server.log().count("WARNING skywalking: Failed to install sw_logging plugin") == 1


def test_unfit_layouts_cost_lines_not_tasks(serve: Serve, collector: Collector) -> None:
    server = serve(**traces_to(collector.address), SW_AGENT_LOG_REPORTER_LAYOUT="%(nothing)s")
    httpx.post(f"{server.url}/action")
    server.wait_for_log("log_action succeeded")
    server.stop()
    assert server.log().count("tracing failed in") == 1


def test_refusing_the_agents_loop_keeps_tracing(serve: Serve, collector: Collector) -> None:
    server = serve(**traces_to(collector.address), SW_AGENT_ASYNCIO_ENHANCEMENT="true")
    assert tracing_of(server) == "on"
    collector.segment("GET:/health")
    assert server.log().count("SW_AGENT_ASYNCIO_ENHANCEMENT") == 1


def test_sw_pythons_event_loop_prevents_tracing(serve: Serve, collector: Collector) -> None:
    variables = {**traces_to(collector.address), "SW_AGENT_ASYNCIO_ENHANCEMENT": "true"}
    server = serve(command=["sw-python", "run", "uvicorn"], **variables)
    assert tracing_of(server) == "broken"
    assert httpx.post(f"{server.url}/action").status_code == 202
    server.wait_for_log("log_action succeeded")
    assert len(re.findall("WARNING.*nothing is traced", server.log())) == 1


def test_a_restarted_collector_misses_no_task(serve: Serve) -> None:
    def more(load: Load, count: int) -> None:
        enough = len(load.accepted) + count
        until(lambda: len(load.accepted) >= enough, 30)

    with Collector() as first:
        server = serve(**traces_to(first.address))
        load = Load(server.url, "/action", clients=2)
        more(load, 200)
    until(lambda: "does not answer" in server.log(), 20)
    more(load, 500)
    with Collector(address=first.address) as second:
        more(load, 200)
        accepted = load.stop()
        # A task and its request are two segments, and the agent's buffer holds 10,000.
        assert len(accepted) < 4000

        def missing() -> set[str]:
            seen = [*first.named("log_action"), *second.named("log_action")]
            return {*accepted} - {tags(root(segment))["task.id"] for segment in seen}

        until(lambda: not missing(), 60)
        # Or it came back too early to have missed anything.
        assert len(second.named("log_action")) >= 700
