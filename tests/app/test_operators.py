"""Who may operate: a token, a browser's login or this machine; nobody else, and all is noted."""

import logging
import re
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from itsdangerous import TimestampSigner
from starlette.applications import Starlette
from starlette.routing import Mount

import tasks
from afterwards import Afterwards, http
from afterwards.http import Operators, guesses, sessions
from afterwards.http.guesses import FREE, LONGEST_WAIT, Guesses
from afterwards.http.tokens import fingerprint
from afterwards.testing import TaskKit
from tests.lifespan import living

pytestmark = pytest.mark.anyio

TOKEN, NEXT_TOKEN, READ_TOKEN = "the first of some length", "the next of some length", "r" * 16
OWN = {"Origin": "http://localhost"}
NAVIGATION = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}


class Owner:
    """An owner whose tasks a test runs by hand."""

    def __init__(self, kit: TaskKit) -> None:
        self.store, self.process, self.cancel = kit.store, self, kit.process.cancel

    def wake(self) -> None: ...


@pytest.fixture
async def kit() -> AsyncIterator[TaskKit]:
    async with TaskKit() as kit:
        yield kit


def asking(
    kit: TaskKit,
    operators: Operators,
    *,
    base: str = "http://localhost",
    address: str = "127.0.0.1",
    **headers: str,
) -> httpx.AsyncClient:
    """Make a client of a service that has only these operators."""
    app = Starlette(routes=[Mount("/tasks", http.make(Owner(kit), operators))])
    http.answer_without_slash(app)
    transport = httpx.ASGITransport(app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url=base, headers=headers)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def dead(kit: TaskKit) -> str:
    """Store a task that can be retried."""
    id = await kit.enqueue(tasks.log_action, "operated")
    assert await kit.store.cancel(id)
    return id


async def log_in(client: httpx.AsyncClient, token: str = TOKEN) -> str:
    """Log in with a form, and return what forms must bear."""
    answer = await client.post("/tasks/login", data={"token": token}, headers=OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks/login")
    return form_token(await client.get("/tasks/login"))


def form_token(page: httpx.Response) -> str:
    [found] = re.findall('name="csrf" value="([^"]+)"', page.text)
    return str(found)


# --- without a token ---


async def test_without_a_token_nobody_operates(kit: TaskKit) -> None:
    id = await dead(kit)
    async with asking(kit, Operators()) as client:
        for answer in (
            await client.get("/tasks"),
            await client.get("/tasks/changes"),
            await client.get("/tasks/login"),
            await client.get(f"/tasks/{id}/arguments"),
            await client.post(f"/tasks/{id}/retry"),
            await client.delete(f"/tasks/{id}"),
        ):
            assert answer.status_code == 403
            assert re.search("ADMIN_TOKEN.*DEVELOPMENT=1", answer.json()["detail"])
        assert (await client.get(f"/tasks/{id}")).json()["state"] == "cancelled"


LOCAL: list[tuple[str, str, dict[str, str]]] = [
    ("http://localhost:8000", "127.0.0.1", {}),
    ("http://LOCALHOST", "127.8.9.1", {}),
    ("http://127.0.0.1:8000", "::1", {}),
    ("http://[::1]:8000", "::ffff:127.0.0.1", {}),
    ("http://localhost:8000", "127.0.0.1", {"Origin": "http://localhost:8000"}),
    ("http://localhost", "127.0.0.1", {"Sec-Fetch-Site": "none"}),
    ("http://localhost", "127.0.0.1", NAVIGATION),
]
STRANGE: list[tuple[str, str, dict[str, str]]] = [
    ("http://localhost", "203.0.113.9", {}),
    ("http://localhost", "::ffff:203.0.113.9", {}),
    ("http://localhost", "nobody", {}),
    ("http://rebound.example", "127.0.0.1", {}),  # a name that was made to point here
    ("http://rebound.example:8000", "127.0.0.1", {"Origin": "http://rebound.example:8000"}),
    ("http://localhost.example", "127.0.0.1", {}),
    ("http://localhost", "127.0.0.1", {"Host": "evil@localhost"}),
    ("http://localhost", "127.0.0.1", {"Host": ""}),
    ("http://203.0.113.9", "127.0.0.1", {}),
    ("http://localhost:8000", "127.0.0.1", {"Origin": "http://localhost:9000"}),
    ("http://localhost", "127.0.0.1", {"Origin": "https://evil.example"}),
    ("http://localhost", "127.0.0.1", {"Origin": "null"}),
    ("http://localhost", "127.0.0.1", {"Origin": "http://[bad"}),
    ("http://localhost", "127.0.0.1", {"Sec-Fetch-Site": "cross-site"}),
    ("http://localhost", "127.0.0.1", {"Sec-Fetch-Site": "same-site"}),
    ("http://localhost", "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
    ("http://localhost", "127.0.0.1", {"Forwarded": "for=127.0.0.1"}),
    ("http://localhost", "127.0.0.1", {"X-Forwarded-Proto": "http"}),
    ("http://localhost", "127.0.0.1", {"X-Real-IP": "127.0.0.1"}),
    ("http://localhost", "127.0.0.1", {"Via": "1.1 proxy"}),
]


@pytest.mark.parametrize(("base", "address", "headers"), LOCAL)
async def test_development_admits_this_machine(
    kit: TaskKit, base: str, address: str, headers: dict[str, str]
) -> None:
    id = await dead(kit)
    operators = Operators(development=True)
    async with asking(kit, operators, base=base, address=address, **headers) as client:
        assert (await client.get("/tasks")).status_code == 200
        retried = await client.post(f"/tasks/{id}/retry")
        assert retried.status_code == (403 if headers is NAVIGATION else 202)


@pytest.mark.parametrize(("base", "address", "headers"), STRANGE)
async def test_development_refuses_everybody_else(
    kit: TaskKit, base: str, address: str, headers: dict[str, str]
) -> None:
    id = await dead(kit)
    operators = Operators(development=True)
    async with asking(kit, operators, base=base, address=address, **headers) as client:
        for answer in (await client.get("/tasks"), await client.post(f"/tasks/{id}/retry")):
            assert answer.status_code == 403
            assert "ADMIN_TOKEN" in answer.json()["detail"]


async def test_a_token_ends_development(kit: TaskKit) -> None:
    async with asking(kit, Operators(READ_TOKEN, development=True)) as client:
        assert (await client.get("/tasks")).status_code == 401
    async with asking(kit, Operators(None, READ_TOKEN, development=True)) as client:
        assert (await client.get("/tasks")).status_code == 401


# --- tokens ---


async def test_several_tokens_are_right(kit: TaskKit) -> None:
    async with asking(kit, Operators([TOKEN, NEXT_TOKEN]), address="203.0.113.9") as client:
        for token in (TOKEN, NEXT_TOKEN):
            assert (await client.get("/tasks", headers=bearer(token))).status_code == 200
        assert (await client.get("/tasks", headers=bearer(READ_TOKEN))).status_code == 401


async def test_a_reader_changes_nothing(kit: TaskKit) -> None:
    id = await dead(kit)
    async with asking(kit, Operators(TOKEN, READ_TOKEN), **bearer(READ_TOKEN)) as client:
        for path in ("", "/changes", f"/{id}/arguments"):
            assert (await client.get(f"/tasks{path}")).status_code == 200
        for answer in (
            await client.post(f"/tasks/{id}/retry"),
            await client.delete(f"/tasks/{id}"),
        ):
            assert answer.status_code == 403
            assert "only read" in answer.json()["detail"]
    assert (await kit.store.get(id)).state == "cancelled"
    assert await kit.store.changes() == []


@pytest.mark.parametrize("tokens", [("",), ("short",), (TOKEN, "short"), (None, "short")])
def test_a_useless_token_is_refused(tokens: Any) -> None:
    with pytest.raises(ValueError, match="token: takes a secret of 16"):
        Operators(*tokens)


def test_a_reader_needs_another_token() -> None:
    with pytest.raises(ValueError, match="read_token: takes another secret"):
        Operators([TOKEN, NEXT_TOKEN], NEXT_TOKEN)


async def test_fastapi_has_the_same_operators() -> None:
    afterwards, app = Afterwards("sqlite:///data/tasks.db"), FastAPI()
    app.mount("/internal/tasks", afterwards.http(token=[TOKEN], read_token=READ_TOKEN))
    afterwards.install(app)
    transport = httpx.ASGITransport(app)
    async with (
        living(app),
        httpx.AsyncClient(transport=transport, base_url="http://x") as client,
    ):
        assert (await client.get("/internal/tasks")).status_code == 401
        headers = {"Origin": "http://x"}
        data = {"token": READ_TOKEN, "next": "/internal/tasks?limit=1"}
        answer = await client.post("/internal/tasks/login", data=data, headers=headers)
        assert answer.headers["location"] == data["next"]
        assert (await client.get("/internal/tasks")).status_code == 200
        assert "reader" in (await client.get("/internal/tasks/login")).text


# --- a browser's login ---


async def test_a_login_opens_and_ends(kit: TaskKit) -> None:
    id = await dead(kit)
    async with asking(kit, Operators(TOKEN)) as client:
        assert "Sign in" in (await client.get("/tasks/login")).text
        csrf = await log_in(client)
        assert (await client.get("/tasks")).status_code == 200
        retried = await client.post(f"/tasks/{id}/retry", headers=OWN | {"X-CSRF-Token": csrf})
        assert retried.status_code == 202
        out = await client.post("/tasks/logout", data={"csrf": csrf}, headers=OWN)
        assert (out.status_code, out.headers["location"]) == (303, "/tasks/login")
        assert (await client.get("/tasks")).status_code == 401
        assert "Sign in" in (await client.get("/tasks/login")).text


@pytest.mark.parametrize(("base", "is_secure"), [("http://h", False), ("https://h", True)])
async def test_the_cookie_is_locked_up(kit: TaskKit, base: str, is_secure: bool) -> None:
    async with asking(kit, Operators(TOKEN), base=base) as client:
        answer = await client.post("/tasks/login", data={"token": TOKEN}, headers={"Origin": base})
        [cookie] = answer.headers.get_list("set-cookie")
    name, *attributes = cookie.lower().split("; ")
    wanted = {"httponly", "samesite=strict", "path=/", "max-age=43200"}
    assert wanted <= {*attributes}
    assert ("secure" in attributes) == name.startswith("__host-") == is_secure
    assert TOKEN not in cookie


async def test_a_rotated_token_ends_its_sessions(kit: TaskKit) -> None:
    async with asking(kit, Operators([TOKEN, NEXT_TOKEN])) as client:
        await log_in(client)
        cookies = client.cookies
    for tokens, status in (([NEXT_TOKEN, TOKEN], 200), ([NEXT_TOKEN], 401)):
        async with asking(kit, Operators(tokens)) as client:
            client.cookies = cookies
            assert (await client.get("/tasks")).status_code == status


def cookie_of(age: float, key: str = TOKEN, salt: str = "afterwards.login") -> dict[str, str]:
    """Return the cookie of a login so many seconds ago."""

    class Signer(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(super().get_timestamp() - age)

    value = Signer(key, salt=salt, digest_method=sha256).sign("0123456789abcdef").decode()
    return {"Cookie": f"afterwards-{fingerprint(TOKEN)}={value}"}


async def test_only_whole_young_sessions_count(kit: TaskKit) -> None:
    async with asking(kit, Operators(TOKEN)) as client:
        for headers, status in (
            (cookie_of(0), 200),
            (cookie_of(sessions.SECONDS - 60), 200),
            (cookie_of(sessions.SECONDS + 60), 401),
            (cookie_of(-3600), 401),
            (cookie_of(0, key=NEXT_TOKEN), 401),
            (cookie_of(0, salt="afterwards.form"), 401),
            ({"Cookie": cookie_of(0)["Cookie"] + "x"}, 401),
            ({"Cookie": f"afterwards-{fingerprint(TOKEN)}=\xff"}, 401),
        ):
            encoded = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = await client.get("/tasks", headers=encoded)  # type: ignore[arg-type]
            assert answer.status_code == status, headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:9000"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
    ],
)
async def test_other_origins_change_nothing(kit: TaskKit, headers: dict[str, str]) -> None:
    id = await dead(kit)
    async with asking(kit, Operators(TOKEN)) as client:
        csrf = await log_in(client)
        foreign = {**headers, "X-CSRF-Token": csrf}
        for answer in (
            await client.post(f"/tasks/{id}/retry", headers=foreign),
            await client.delete(f"/tasks/{id}", headers=foreign),
            await client.post("/tasks/logout", data={"csrf": csrf}, headers=headers),
            await client.post("/tasks/login", data={"token": TOKEN}, headers=headers),
        ):
            assert (answer.status_code, answer.headers.get("set-cookie")) == (403, None)
        assert (await client.get("/tasks")).status_code == 200
    assert (await kit.store.get(id)).state == "cancelled"


@pytest.mark.parametrize("given", ["", "wrong", "\xfc", "of another session"])
async def test_without_its_form_token_nothing_changes(kit: TaskKit, given: str) -> None:
    id, operators = await dead(kit), Operators(TOKEN)
    if given == "of another session":
        async with asking(kit, operators) as client:
            given = await log_in(client)
    async with asking(kit, operators) as client:
        await log_in(client)
        headers = {**OWN, "X-CSRF-Token": given.encode("latin-1")} if given else OWN
        answer = await client.post(f"/tasks/{id}/retry", headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 403
        out = await client.post("/tasks/logout", data={"csrf": given}, headers=OWN)
        assert (out.status_code, "set-cookie" in out.headers) == (403, False)
    assert (await kit.store.get(id)).state == "cancelled"


async def test_a_reader_logs_in_to_read(kit: TaskKit) -> None:
    id = await dead(kit)
    async with asking(kit, Operators(TOKEN, READ_TOKEN)) as client:
        csrf = await log_in(client, READ_TOKEN)
        assert (await client.get("/tasks")).status_code == 200
        headers = OWN | {"X-CSRF-Token": csrf}
        assert (await client.post(f"/tasks/{id}/retry", headers=headers)).status_code == 403
        out = await client.post("/tasks/logout", data={"csrf": csrf}, headers=OWN)
        assert "set-cookie" in out.headers


async def test_a_browser_is_led_to_the_login(kit: TaskKit) -> None:
    async with asking(kit, Operators(TOKEN)) as client:
        html = {"Accept": "text/html,*/*"}
        led = await client.get("/tasks?state=dead&limit=2", headers=html)
        assert led.status_code == 303
        page = await client.get(led.headers["location"])
        assert 'name="next" value="/tasks?state=dead&amp;limit=2"' in page.text
        assert (await client.get("/tasks", headers={"Accept": "*/*"})).status_code == 401
        assert (await client.delete("/tasks/task-1", headers=html)).status_code == 401


async def test_a_proxys_host_does_not_matter(kit: TaskKit) -> None:
    """A browser knows better than a Host that a proxy has put."""
    id = await dead(kit)
    public = {"Origin": "https://public.example", "Sec-Fetch-Site": "same-origin"}
    async with asking(kit, Operators(TOKEN)) as client:
        answer = await client.post("/tasks/login", data={"token": TOKEN}, headers=public)
        assert answer.status_code == 303
        csrf = form_token(await client.get("/tasks/login"))
        retried = await client.post(f"/tasks/{id}/retry", headers=public | {"X-CSRF-Token": csrf})
        assert retried.status_code == 202


async def test_a_logged_in_browser_goes_on(kit: TaskKit) -> None:
    async with asking(kit, Operators(TOKEN)) as client:
        await log_in(client)
        for path, where in (("/tasks?limit=3", "/tasks?limit=3"), ("//evil", "/tasks/login")):
            answer = await client.get("/tasks/login", params={"next": path})
            assert (answer.status_code, answer.headers["location"]) == (303, where)


async def test_no_list_is_cached(kit: TaskKit) -> None:
    id = await dead(kit)
    async with asking(kit, Operators(TOKEN), **bearer(TOKEN)) as client:
        for path in ("", "/changes", f"/{id}/arguments"):
            answer = await client.get(f"/tasks{path}")
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        *("//evil.example", "https://evil.example", "/\\evil.example", "/elsewhere", "/tasksx"),
        *("/tasks/\\evil", "/tasks\n", "/tasks/ x", ""),
    ],
)
async def test_a_login_leads_nowhere_else(kit: TaskKit, path: str) -> None:
    async with asking(kit, Operators(TOKEN)) as client:
        data = {"token": TOKEN, "next": path}
        answer = await client.post("/tasks/login", data=data, headers=OWN)
        assert answer.headers["location"] == "/tasks/login"


async def test_the_pages_have_a_strict_policy(kit: TaskKit) -> None:
    async with asking(kit, Operators(TOKEN)) as client:
        for query in ({"next": '"><script>alert(1)</script>'}, {}):
            page = await client.get("/tasks/login", params=query)
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert page.headers["cache-control"] == "no-store"
            assert "<script" not in page.text
            await log_in(client)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("token=x", "text/plain", 415),
        ('{"token": "x"}', "application/json", 415),
        ("token=" + "x" * 9000, "application/x-www-form-urlencoded", 413),
        ("&".join(f"a{n}=" for n in range(101)), "application/x-www-form-urlencoded", 422),
        ("", "application/x-www-form-urlencoded", 401),
        ("token=%FF%00", "application/x-www-form-urlencoded", 401),
    ],
)
async def test_what_is_no_form_is_refused(
    kit: TaskKit, body: str, content_type: str, status: int
) -> None:
    async with asking(kit, Operators(TOKEN)) as client:
        headers = OWN | {"Content-Type": content_type}
        answer = await client.post("/tasks/login", content=body, headers=headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)


# --- wrong tokens ---


async def test_guesses_are_slowed_and_logged(
    kit: TaskKit, caplog: pytest.LogCaptureFixture
) -> None:
    operators = Operators(TOKEN)
    async with asking(kit, operators, address="203.0.113.9") as client:
        statuses = []
        for n in range(FREE + 5):
            answer = await client.get("/tasks", headers=bearer(f"guess number {n} of many"))
            statuses.append(answer.status_code)
        assert statuses == [401] * FREE + [429] * 5
        assert 0 < int(answer.headers["retry-after"]) <= LONGEST_WAIT
        assert re.fullmatch(r'"operators";r=0;t=\d+', answer.headers["ratelimit"])
        assert (await client.get("/tasks", headers=bearer(TOKEN))).status_code == 429
        page = await client.post(
            "/tasks/login", data={"token": TOKEN}, headers={"Origin": "http://localhost"}
        )
        assert (page.status_code, "alert" in page.text) == (429, True)
        assert int(page.headers["retry-after"]) > 0
    async with asking(kit, operators, address="203.0.113.10") as client:
        assert (await client.get("/tasks", headers=bearer(TOKEN))).status_code == 200
    assert len([each for each in caplog.messages if "from 203.0.113.9" in each]) == FREE
    assert "guess number" not in caplog.text


async def test_guesses_lock_no_operator_out(kit: TaskKit) -> None:
    operators = Operators(TOKEN)
    async with asking(kit, operators) as browser, asking(kit, operators) as client:
        await log_in(browser)
        for n in range(FREE + 1):
            await client.get("/tasks", headers=bearer(f"guess number {n} of many"))
        # Both are known at this address; what nobody has shown here has to wait.
        assert (await browser.get("/tasks")).status_code == 200
        assert (await client.get("/tasks", headers=bearer(TOKEN))).status_code == 200
        assert (await client.get("/tasks", headers=bearer(NEXT_TOKEN))).status_code == 429


async def test_no_token_is_no_guess(kit: TaskKit) -> None:
    async with asking(kit, Operators(TOKEN)) as client:
        for _ in range(FREE + 5):
            assert (await client.get("/tasks")).status_code == 401


def test_waits_grow_and_end() -> None:
    now, waits = [1000.0], []
    guessed = Guesses(lambda: now[0])
    for _ in range(FREE + 10):
        guessed.was_wrong("a")
        waits.append(guessed.wait("a"))
        now[0] += guessed.wait("a")
        assert guessed.wait("a") == 0
    assert waits[: FREE - 1] == [0] * (FREE - 1)
    assert waits[FREE - 1 : FREE + 4] == [1, 2, 4, 8, 16]
    assert max(waits) == waits[-1] == LONGEST_WAIT
    now[0] += guesses.FORGOTTEN_AFTER + 1
    guessed.was_wrong("a")
    assert guessed.wait("a") == guessed.wait("b") == 0


def test_guesses_take_bounded_memory() -> None:
    guessed = Guesses()
    for n in range(guesses.MOST_CLIENTS * 2):
        guessed.was_wrong(f"a{n}")
        guessed.was_right(f"a{n}", "f")
    assert len(guessed._clients) == len(guessed._shown) == guesses.MOST_CLIENTS
    assert guessed.has_shown(f"a{n}", "f")
    assert not guessed.has_shown("a0", "f")


async def test_half_an_ipv6_address_is_one_client(kit: TaskKit) -> None:
    operators, statuses = Operators(TOKEN), []
    for n in range(FREE + 1):
        async with asking(kit, operators, address=f"2001:db8:0:1::{n:x}") as client:
            answer = await client.get("/tasks", headers=bearer(f"guess number {n} of many"))
            statuses.append(answer.status_code)
    assert statuses == [401] * FREE + [429]


async def test_a_socket_for_both_tells_clients_apart(kit: TaskKit) -> None:
    operators = Operators(TOKEN)
    for address, expected in (("::ffff:203.0.113.7", 429), ("::ffff:203.0.113.8", 401)):
        statuses = []
        for n in range(FREE + 1 if expected == 429 else 1):
            async with asking(kit, operators, address=address) as client:
                answer = await client.get("/tasks", headers=bearer(f"guess number {n} of many"))
                statuses.append(answer.status_code)
        assert statuses[-1] == expected


# --- what was changed ---


async def test_each_change_leaves_row_and_line(
    kit: TaskKit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tasks")
    id = await dead(kit)
    async with asking(kit, Operators(TOKEN), address="203.0.113.9", **bearer(TOKEN)) as client:
        await client.post(f"/tasks/{id}/retry")
        await client.delete(f"/tasks/{id}")
        assert (await client.delete(f"/tasks/{id}")).status_code == 409  # changed nothing
        first = (await client.get("/tasks/changes?limit=1")).json()
        second = (await client.get(first["next"])).json()
        rest = (await client.get(second["next"])).json()
    who = f"operator {fingerprint(TOKEN)}"
    rows = first["changes"] + second["changes"]
    assert [(row["what"], row["who"], row["address"], row["which"]) for row in rows] == [
        ("cancel", who, "203.0.113.9", [id]),
        ("retry", who, "203.0.113.9", [id]),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", rows[0]["at"])
    assert rest == {"changes": [], "next": None}
    for what in ("retry", "cancel"):
        assert f"{who} from 203.0.113.9: {what} {id}" in caplog.messages
    assert TOKEN not in caplog.text


async def test_logins_and_this_machine_are_told_apart(kit: TaskKit) -> None:
    id = await dead(kit)
    async with asking(kit, Operators(TOKEN)) as client:
        csrf = await log_in(client)
        await client.post(f"/tasks/{id}/retry", headers=OWN | {"X-CSRF-Token": csrf})
    async with asking(kit, Operators(development=True)) as client:
        await client.delete(f"/tasks/{id}")
        listed = (await client.get("/tasks/changes")).json()["changes"]
    assert [row["who"] for row in listed] == [
        "this machine",
        f"operator {fingerprint(TOKEN)}, login",
    ]


@pytest.mark.parametrize("query", ["after=task-1", "limit=0", "limit=101", "before=now"])
async def test_a_wrong_page_is_a_422(kit: TaskKit, query: str) -> None:
    async with asking(kit, Operators(TOKEN), **bearer(TOKEN)) as client:
        assert (await client.get(f"/tasks/changes?{query}")).status_code == 422
