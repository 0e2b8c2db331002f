"""The log of a service under load says all that happened, however the service ends."""

import re
import signal
from collections.abc import Callable

import httpx
import pytest

from tests.serving import Load, Server, until
from web.stdout import AT_ONCE

Serve = Callable[..., Server]
BAD = "tests.process.bad_tasks_app:app"
MANY = 3 * AT_ONCE


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_stopping_under_load_loses_no_line(serve: Serve, sign: int, style: str) -> None:
    server = serve(LOG_FORMAT=style)
    load = Load(server.url, "/action")
    until(lambda: len(load.accepted) > MANY, 60)
    server.stop(sign)
    accepted = load.stop()
    named = re.compile(r"log_action (started|succeeded).*\b(task-[\w-]+)")
    told = [match.groups() for match in named.finditer(server.log())]
    assert set(told) >= {(word, id) for id in accepted for word in ("started", "succeeded")}
    assert len(set(told)) == len(told)
    assert server.log().count("POST /action") >= load.statuses.total()
    assert "Finished server process" in server.log().splitlines()[-1]


def test_the_watchdog_loses_no_line(serve: Serve) -> None:
    server = serve(app=BAD, DRAIN="0.5")
    with httpx.Client(base_url=server.url) as client:
        for _ in range(MANY):
            client.get("/takes_a_second")
        client.get("/blocks_when_cancelled")
    server.stop()
    assert server.process.returncode == 1
    assert server.log().count("GET /takes_a_second") == MANY
    assert server.log().count("takes_a_second started") == MANY
    assert "a task blocks the event loop" in server.log().splitlines()[-1]
