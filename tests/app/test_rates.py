"""How often a client, a recipient, a task and a guess may come, and what a 429 tells."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

import asgi_app
from afterwards.errors import DatabaseUnavailable
from afterwards.problems import Problem
from settings import WrongSetting, read
from tests.brokers import Broker, free_port
from tests.databases import empty_database
from tests.fleet import needs
from tests.lifespan import living
from web import rates
from web.counting import InDatabase
from web.quotas import TooMany
from web.rates import Rates, client_of, mailbox

pytestmark = pytest.mark.anyio

Serving = Callable[..., AbstractAsyncContextManager[Starlette]]
ADA = "ada@example.com"


@pytest.fixture
async def database_url(tmp_path: Any) -> AsyncIterator[str]:
    async with empty_database("sqlite", tmp_path) as url:
        yield url


@pytest.fixture
def serving(quick: None, database_url: str) -> Serving:
    @asynccontextmanager
    async def serve(**variables: str) -> AsyncIterator[Starlette]:
        app = asgi_app.create_app(read({"DATABASE_URL": database_url, **variables}))
        async with living(app):
            yield app

    return serve


def asking(app: Starlette, address: str = "203.0.113.7") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def statuses(client: httpx.AsyncClient, times: int, path: str = "/action") -> list[int]:
    return [(await client.post(path)).status_code for _ in range(times)]


def user(number: int, email: str = "") -> dict[str, str]:
    return {"email": email or f"ada{number}@example.com", "username": f"ada{number}"}


def is_refused(answer: httpx.Response, policy: str, most: int) -> None:
    """Check what a 429 tells by the draft and RFC 9457."""
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 429
    assert "task-id" not in answer.headers
    seconds = int(answer.headers["retry-after"])
    assert 0 < seconds <= 3600
    limits = answer.headers["ratelimit"].split(", ")
    policies = answer.headers["ratelimit-policy"].split(", ")
    assert f'"{policy}";r=0;t={seconds}' in limits
    assert any(re.fullmatch(rf'"{policy}";q={most};w=\d+', each) for each in policies)


async def test_a_client_comes_so_often(serving: Serving) -> None:
    async with serving(RATE_LIMIT="3/hour") as app, asking(app) as client:
        assert await statuses(client, 3) == [202] * 3
        is_refused(await client.post("/action"), "client", 3)
        is_refused(await client.get("/nowhere"), "client", 3)
        async with asking(app, "203.0.113.8") as another:
            assert await statuses(another, 1) == [202]


async def test_off_means_as_often_as_it_likes(serving: Serving) -> None:
    async with serving() as app, asking(app) as client:
        assert await statuses(client, 120) == [202] * 120
        assert "ratelimit" not in (await client.get("/")).headers


async def test_each_answer_tells_what_is_left(serving: Serving) -> None:
    async with serving(RATE_LIMIT="20/30 seconds") as app, asking(app) as client:
        answers = [await client.get("/nowhere"), await client.post("/action")]
    assert [answer.headers["ratelimit-policy"] for answer in answers] == ['"client";q=20;w=30'] * 2
    left = [re.fullmatch(r'"client";r=(\d+);t=(\d+)', a.headers["ratelimit"]) for a in answers]
    assert [each and each[1] for each in left] == ["19", "18"]
    assert all(each and 0 < int(each[2]) <= 30 for each in left)


async def test_health_is_never_refused(serving: Serving) -> None:
    async with serving(RATE_LIMIT="1/hour") as app, asking(app) as client:
        assert [(await client.get("/health")).status_code for _ in range(5)] == [200] * 5
        assert await statuses(client, 2) == [202, 429]


async def test_a_network_of_ipv6_is_one_client(serving: Serving) -> None:
    async with serving(RATE_LIMIT="1/hour") as app:
        for address, status in [
            ("2001:db8:0:1::1", 202),
            ("2001:db8:0:1:ffff::2", 429),
            ("2001:db8:0:2::1", 202),
            ("203.0.113.9", 202),
            ("::ffff:203.0.113.9", 429),
        ]:
            async with asking(app, address) as client:
                assert await statuses(client, 1) == [status], address


@pytest.mark.parametrize("garbage", ["", "unknown", "x" * 65_000, "1.2.3"])
def test_what_is_no_address_is_one_client(garbage: str) -> None:
    assert client_of({"client": (garbage, 0)}) == client_of({"client": ("other garbage", 0)})
    assert client_of({"client": None}) == client_of({})


async def test_a_mailbox_gets_so_many(serving: Serving) -> None:
    async with serving(MAILS_PER_RECIPIENT="2/hour") as app, asking(app) as client:
        for number, email in enumerate([f"Ada+{each}@Example.com" for each in range(2)]):
            assert (await client.post("/users/", json=user(number, email))).status_code == 201
        is_refused(await client.post("/users/", json=user(3, "ada+x@example.com")), "mails", 2)
        users = (await client.get("/users/")).json()
        assert [each["username"] for each in users] == ["ada0", "ada1"]
        assert (await client.post("/users/", json=user(4, "bob@example.com"))).status_code == 201


async def test_mailboxes_are_limited_from_the_start(serving: Serving) -> None:
    async with serving() as app, asking(app) as client:
        answers = [await client.post("/users/", json=user(n, f"a+{n}@b.org")) for n in range(6)]
        assert [answer.status_code for answer in answers] == [201] * 5 + [429]


async def test_off_lets_every_mail_pass(serving: Serving) -> None:
    async with serving(MAILS_PER_RECIPIENT="off") as app, asking(app) as client:
        answers = [await client.post("/users/", json=user(n, f"a+{n}@b.org")) for n in range(7)]
        assert [answer.status_code for answer in answers] == [201] * 7


async def test_what_is_refused_for_another_reason_is_not_counted(serving: Serving) -> None:
    async with serving(MAILS_PER_RECIPIENT="1/hour") as app, asking(app) as client:
        assert (await client.post("/users/", json=user(1, ADA))).status_code == 201
        again = [(await client.post("/users/", json=user(1, ADA))).status_code for _ in range(3)]
        assert again == [409] * 3


def test_a_mailbox_is_one_however_it_is_written() -> None:
    assert {*map(mailbox, [ADA, "ADA@example.COM", "ada+x@example.com", "ada++@example.com"])} == {
        ADA
    }
    assert mailbox("+tag@example.com") == "+tag@example.com"
    assert mailbox("adam@example.com") != mailbox(ADA)


async def test_tasks_of_a_name_are_limited(serving: Serving) -> None:
    async with (
        serving(TASK_RATE_LIMITS="log_action=2/hour, work=1/hour") as app,
        asking(app) as client,
    ):
        assert await statuses(client, 2) == [202] * 2
        is_refused(await client.post("/action"), "tasks-log_action", 2)
        assert await statuses(client, 2, "/async-task/") == [202, 429]
        assert await statuses(client, 3, "/api/notifications/notify") == [200] * 3


async def test_nothing_of_a_refused_answer_is_accepted(serving: Serving) -> None:
    """Three tasks are attached, and one of them is one too many."""
    async with serving(TASK_RATE_LIMITS="write_audit_record=1/hour") as app, asking(app) as client:
        assert await statuses(client, 2, "/complex-action") == [202, 429]
        state = app.state.afterwards
        rows = await state.database.all("SELECT name FROM {tasks}")
        assert len(rows) == 3


async def test_a_repeat_with_a_key_costs_nothing(serving: Serving) -> None:
    key = {"Idempotency-Key": "k"}
    async with serving(TASK_RATE_LIMITS="log_action=1/hour") as app, asking(app) as client:
        answers = [await client.post("/action", headers=key) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [202] * 5
        assert len({answer.headers["task-id"] for answer in answers}) == 1
        is_refused(
            await client.post("/action", headers={"Idempotency-Key": "n"}), "tasks-log_action", 1
        )


async def test_a_refused_key_may_come_again(serving: Serving) -> None:
    """A 429 is no answer that a key keeps."""
    key = {"Idempotency-Key": "k"}
    async with serving(TASK_RATE_LIMITS="log_action=1/second") as app, asking(app) as client:
        while (await client.post("/action")).status_code != 429:
            pass
        refused = await client.post("/action", headers=key)
        while (answer := await client.post("/action", headers=key)).status_code == 429:
            pass
        assert (refused.status_code, answer.status_code) in [(429, 202), (202, 202)]


def test_an_unknown_task_stops_the_start() -> None:
    with pytest.raises(WrongSetting, match="TASK_RATE_LIMITS: got 'wrok'"):
        Rates(read({"TASK_RATE_LIMITS": "wrok=1/hour"}))


def asked_by(address: str) -> Request:
    return Request({"type": "http", "client": (address, 5000), "headers": []})


async def guess(own: Rates, account: str, address: str, *, is_right: bool = False) -> int:
    try:
        async with own.guess(asked_by(address), account):
            if not is_right:
                raise Problem(401, "The password is wrong.")
    except (Problem, TooMany) as error:
        return error.status_code
    return 200


async def test_guesses_are_limited_from_the_start() -> None:
    own = Rates(read({}))
    assert [await guess(own, ADA, "203.0.113.7") for _ in range(12)] == [401] * 10 + [429] * 2
    assert await guess(own, ADA, "203.0.113.7", is_right=True) == 429
    assert await guess(own, ADA, "203.0.113.8", is_right=True) == 200


async def test_who_knows_the_secret_is_not_limited() -> None:
    own = Rates(read({}))
    known = [await guess(own, ADA, "203.0.113.7", is_right=True) for _ in range(150)]
    assert known == [200] * 150


async def test_what_was_not_looked_at_is_no_guess() -> None:
    """As while the database is away: who comes back then must not be refused for it."""
    own = Rates(read({}))
    for _ in range(20):
        with pytest.raises(DatabaseUnavailable):
            async with own.guess(asked_by("203.0.113.7"), ADA):
                raise DatabaseUnavailable
    assert await guess(own, ADA, "203.0.113.7") == 401


async def test_many_clients_guess_at_one_account() -> None:
    own = Rates(read({"TOKEN_GUESSES": "2/hour"}))
    tried = [await guess(own, ADA, f"203.0.113.{number}") for number in range(25)]
    assert tried == [401] * 20 + [429] * 5
    assert await guess(own, "bob", "203.0.113.99") == 401


async def test_guesses_can_be_unlimited() -> None:
    own = Rates(read({"TOKEN_GUESSES": "off"}))
    assert [await guess(own, ADA, "203.0.113.7") for _ in range(20)] == [401] * 20


async def test_a_storage_that_is_down_fails_nothing(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    storage = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    caplog.set_level(logging.WARNING, "service")
    rules = {"RATE_LIMIT": "20/hour", "RATE_LIMIT_STORAGE": storage}
    async with serving(**rules) as app, asking(app) as client:
        assert await statuses(client, 22) == [202] * 20 + [429] * 2  # for this process alone
    lines = [line for line in caplog.messages if "rate limits" in line]
    assert len(lines) == 1
    assert "hunter2" not in lines[0]


async def test_redis_counts_for_all_processes(
    serving: Serving, brokers: Callable[[str], Broker], caplog: pytest.LogCaptureFixture
) -> None:
    variables = {"RATE_LIMIT": "4/hour", "RATE_LIMIT_STORAGE": brokers("redis").url}
    async with serving(**variables) as first, asking(first, "203.0.113.70") as client:
        assert await statuses(client, 3) == [202] * 3
        own = Rates(read(variables))
        assert own.client
        hits = [await own.hit(own.client, "203.0.113.70") for _ in range(3)]
        assert [quota.is_passed for quota in hits] == [True, False, False]
        assert 0 < hits[2].seconds <= 3600
        await own.close()
        is_refused(await client.post("/action"), "client", 4)
    assert not [line for line in caplog.messages if "rate limits" in line]


async def test_a_flood_is_not_counted_elsewhere(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been refused costs the database nothing until its window ends."""
    asked = []
    incr = InDatabase.incr

    async def counting(self: InDatabase, key: str, expiry: float, amount: int = 1) -> int:
        asked.append(key)
        return await incr(self, key, expiry, amount)

    monkeypatch.setattr(InDatabase, "incr", counting)
    rules = {"RATE_LIMIT": "3/hour", "RATE_LIMIT_STORAGE": "database"}
    async with serving(**rules) as app, asking(app) as client:
        assert await statuses(client, 20) == [202] * 3 + [429] * 17
    assert len(asked) == 4
    assert "203.0.113.7" not in asked[0]


async def test_a_storage_that_hangs_holds_nobody_up(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connected = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)

    monkeypatch.setattr(rates, "OPEN_SECONDS", 0.2)
    monkeypatch.setattr(rates, "DOWN_SECONDS", 3600.0)
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    storage = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    rules = {"RATE_LIMIT": "20/hour", "RATE_LIMIT_STORAGE": storage}
    async with asyncio.timeout(20), serving(**rules) as app, asking(app) as client:
        assert await statuses(client, 20) == [202] * 20
    assert len(connected) == 1
    assert sum("rate limits" in line for line in caplog.messages) == 1
    connected[0].close()
    server.close()


async def test_a_storage_that_is_back_counts(
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    needs("redis")
    monkeypatch.setattr(rates, "DOWN_SECONDS", 0.0)
    redis = Broker("redis", tmp_path)
    variables = {"RATE_LIMIT": "1000/hour", "RATE_LIMIT_STORAGE": redis.url}
    async with serving(**variables) as app, asking(app) as client:
        assert await statuses(client, 3) == [202] * 3
        redis.start()
        assert await statuses(client, 3) == [202] * 3
        assert '"client";r=996;' in (await client.get("/")).headers["ratelimit"]  # three before it
    redis.close()
    assert sum("until their storage is back" in line for line in caplog.messages) == 1
    assert [line for line in caplog.messages if "is back" in line]
