"""What only a real server can show: what happens after an answer, and that it touches no other."""

import http.client
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx

from tests.serving import Server

Serve = Callable[..., Server]
BAD = "tests.process.bad_tasks_app:app"


def test_the_answer_comes_before_the_work(serve: Serve) -> None:
    server = serve(SLEEP_SECONDS="1")
    url = server.url
    began = time.monotonic()
    task_id = httpx.get(f"{url}/test").headers["task-id"]
    assert time.monotonic() - began < 0.5
    assert "background_sleep_task succeeded" not in server.log()
    server.wait_for_log(rf"background_sleep_task succeeded in 1\.0\d\d s  task={task_id}")


def test_three_calls_take_one_calls_time(serve: Serve) -> None:
    server = serve(SLEEP_SECONDS="1")
    url = server.url
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(httpx.get, [f"{url}/test"] * 3))
    server.wait_for_log(r"(?s)(succeeded.*){3}")
    assert time.monotonic() - began < 2


def test_one_answers_tasks_run_in_parallel(serve: Serve) -> None:
    server = serve(NOTIFY_SECONDS="0.5")
    assert httpx.post(f"{server.url}/complex-action").json()["tasks"] == 3
    log = server.wait_for_log(r"(?s).*send_notification succeeded").string
    assert log.index("write_audit_record started") < log.index("send_notification succeeded")
    assert log.index("write_audit_record succeeded") < log.index("send_notification succeeded")


def test_failing_tasks_spare_connection_and_sibling(serve: Serve) -> None:
    server = serve(app=BAD, DRAIN="5")
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    sockets = set()
    for path in ("/fails+takes_a_second", "/exits", "/fails"):
        connection.request("GET", path)
        assert connection.getresponse().read() == b"ok"
        sockets.add(connection.sock)
    connection.close()
    assert len(sockets) == 1
    assert None not in sockets
    server.wait_for_log("takes_a_second succeeded")
    assert len(re.findall("ERROR +tasks: exits failed after", server.log())) == 1
    assert len(re.findall("ValueError: as asked", server.log())) == 2


def test_answers_ids_find_their_log_lines(serve: Serve) -> None:
    server = serve(NOTIFY_SECONDS="0.01")
    ids = httpx.post(f"{server.url}/complex-action").headers["task-id"].split(", ")
    assert len(ids) == 3
    for task_id in ids:
        server.wait_for_log(rf"started  task={task_id}\n")
        server.wait_for_log(rf"succeeded in \d\.\d{{3}} s  task={task_id}\n")


def test_sync_task_answers_after_its_work(serve: Serve) -> None:
    server = serve(WORK_SECONDS="0.5")
    response = httpx.post(f"{server.url}/sync-task/")
    assert response.json() == {"status": "completed", "duration": 0.5}
    assert response.elapsed.total_seconds() >= 0.5


def test_the_log_is_json_on_request(serve: Serve) -> None:
    server = serve(LOG_FORMAT="json", NOTIFY_SECONDS="0.01")
    task_id = httpx.post(f"{server.url}/action").headers["task-id"]
    server.wait_for_log("log_action succeeded")
    server.stop()
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert task_id in {line.get("task") for line in lines}


def test_the_log_level_binds_uvicorn_too(serve: Serve) -> None:
    server = serve(LOG_LEVEL="ERROR", PORT="18428", app="", command=["python", "asgi_app.py"])
    with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
        assert client.get("http://127.0.0.1:18428/health").status_code == 200
    server.stop()
    assert server.log() == ""


def test_leaving_amid_bodies_is_no_error(serve: Serve) -> None:
    server = serve()
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    connection.putrequest("POST", "/process")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b'{"id":')
    connection.close()
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert server.stop() < 1
    assert "Traceback" not in server.log()


def test_simultaneous_workers_share_an_empty_database(serve: Serve) -> None:
    server = serve(args=["--workers", "2"])
    url = server.url
    server.wait_for_log(r"(?s)(Application startup complete.*){2}")
    assert httpx.get(f"{url}/health").json()["database"] == "ok"
    assert "Traceback" not in server.log()


def test_the_plain_scripts_work_too(serve: Serve) -> None:
    demonstration = serve(app="", command=["python", "tasks.py"], SLEEP_SECONDS="0.2")
    assert demonstration.process.wait(20) == 0
    log = demonstration.wait_for_log("(?s)is scheduled.*has finished after").string
    assert log.index("is scheduled") < log.index("slept for")
    server = serve(app="", command=["python", "asgi_app.py"], PORT="18427")
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert server.port == 18427
