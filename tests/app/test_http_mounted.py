"""What is asked of tasks answers under any path of any Starlette application."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import tasks
from afterwards import Afterwards, http
from afterwards.http import Operators
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from afterwards.testing import TaskKit

pytestmark = pytest.mark.anyio

TOKEN = "a secret of some length"
DEVELOPMENT = Operators(development=True)


class Owner:
    """An owner whose tasks a test runs by hand."""

    def __init__(self, kit: TaskKit) -> None:
        self.store = kit.store
        self.process = self
        self.woken = 0
        self.cancel = kit.process.cancel

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
async def kit() -> AsyncIterator[TaskKit]:
    async with TaskKit() as kit:
        yield kit


@pytest.fixture
def owner(kit: TaskKit) -> Owner:
    return Owner(kit)


def client(app: ASGIApp, root_path: str = "", host: str = "localhost") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


def installed(*routes: BaseRoute, **options: Any) -> Starlette:
    """Make an application without handlers of its own, as an `Afterwards` finds it."""
    app = Starlette(routes=routes, **options)
    http.answer_without_slash(app)
    return app


async def everybody(request: Request) -> Response:
    return PlainTextResponse("not about tasks")


# Where tasks answer: how an application has it, and the path of it.
PLACES: list[tuple[Callable[[ASGIApp], BaseRoute], str]] = [
    (lambda it: Mount("/tasks", it), "/tasks"),
    (lambda it: Mount("/tasks/", it), "/tasks"),
    (lambda it: Mount("/a", routes=[Mount("/b/tasks", it)]), "/a/b/tasks"),
    (lambda it: Mount("/sub", Starlette(routes=[Mount("/tasks", it)])), "/sub/tasks"),
    (lambda it: Mount("/sub", Router([Mount("/tasks", it)])), "/sub/tasks"),
    (lambda it: Mount("/tasks", it, middleware=[Middleware(Passing)]), "/tasks"),
    (lambda it: Mount("/t\xe2ches", it), "/t%C3%A2ches"),
]


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


places = pytest.mark.parametrize(("place", "path"), PLACES, ids=[path for _, path in PLACES])


@places
async def test_each_path_answers_with_either_slash(
    owner: Owner, kit: TaskKit, place: Callable[[ASGIApp], BaseRoute], path: str
) -> None:
    id = await kit.enqueue(tasks.log_action, "mounted")
    app = installed(Route("/other", everybody), place(http.make(owner, DEVELOPMENT)))
    async with client(app) as asked:
        for each in ("", "/", f"/{id}", f"/{id}/", f"/{id}/arguments", f"/{id}/arguments/"):
            assert (each, (await asked.get(path + each)).status_code) == (each, 200)
        assert (await asked.get("/other")).text == "not about tasks"


@places
@pytest.mark.parametrize("root", ["", "/behind"])
async def test_links_bear_the_mounts_path(
    owner: Owner, kit: TaskKit, place: Callable[[ASGIApp], BaseRoute], path: str, root: str
) -> None:
    ids = [await kit.enqueue(tasks.log_action, "mounted") for _ in range(3)]
    async with client(installed(place(http.make(owner, DEVELOPMENT))), root) as asked:
        for slash in ("", "/"):
            first = (await asked.get(f"{root}{path}{slash}?limit=2")).json()
            assert first["next"] == f"{root}{path}{slash}?limit=2&after={ids[1]}"
            rest = (await asked.get(first["next"])).json()
            assert [task["id"] for task in rest["tasks"]] == ids[:1]
        await asked.delete(f"{root}{path}/{ids[0]}")
        retried = await asked.post(f"{root}{path}/{ids[0]}/retry")
        assert (retried.status_code, owner.woken) == (202, 1)
        assert retried.headers["location"] == f"{root}{path}/{ids[0]}"
        assert (await asked.get(retried.headers["location"])).json()["state"] == "queued"


async def test_listed_routes_link_to_their_prefix(owner: Owner, kit: TaskKit) -> None:
    ids = [await kit.enqueue(tasks.log_action, "mounted") for _ in range(2)]
    app = installed(Mount("/api", routes=http.routes(owner, DEVELOPMENT, prefix="/v1/tasks")))
    async with client(app, "/behind") as asked:
        for slash in ("", "/"):
            body = (await asked.get(f"/behind/api/v1/tasks{slash}?limit=1")).json()
            assert body["next"] == f"/behind/api/v1/tasks{slash}?limit=1&after={ids[1]}"
    assert http.path_in(app, owner) == "/api/v1/tasks"
    bare = installed(*http.routes(owner, DEVELOPMENT, prefix="/tasks"))
    async with client(bare, "/stripped") as asked:
        body = (await asked.get("/tasks?limit=1")).json()
        assert body["next"] == f"/stripped/tasks?limit=1&after={ids[1]}"


async def test_a_path_without_root_is_found(owner: Owner, kit: TaskKit) -> None:
    id = await kit.enqueue(tasks.log_action, "mounted")
    async with client(installed(Mount("/tasks", http.make(owner, DEVELOPMENT))), "/api") as asked:
        assert (await asked.get(f"/tasks/{id}")).json()["id"] == id
        for slash in ("", "/"):
            following = (await asked.get(f"/tasks{slash}?limit=1")).json()["next"]
            assert following == f"/api/tasks{slash}?limit=1&after={id}"


async def test_another_host_has_no_tasks(owner: Owner) -> None:
    mounted = http.make(owner, Operators(TOKEN))
    app = installed(Host("admin.test", Router([Mount("/tasks", mounted)])))
    async with client(app, host="admin.test") as asked:
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert (await asked.get("/tasks", headers=headers)).status_code == 200
    async with client(app) as asked:
        assert (await asked.get("/tasks")).status_code == 404


# --- what an application may have beside it ---


async def test_another_routes_method_is_kept(owner: Owner) -> None:
    other = Route("/tasks", everybody, methods=["POST"])
    app = installed(Mount("/tasks", http.make(owner, DEVELOPMENT)), other)
    async with client(app) as asked:
        assert (await asked.post("/tasks")).text == "not about tasks"
        assert (await asked.get("/tasks")).json() == {"tasks": [], "next": None}


async def test_another_mount_is_left_alone(owner: Owner) -> None:
    other = Starlette(routes=[Route("/", everybody)])
    app = installed(Mount("/other", other), Mount("/tasks", http.make(owner, DEVELOPMENT)))
    assert [getattr(route, "path", "") for route in app.routes] == ["/other", "/tasks", "/tasks"]
    async with client(app) as asked:
        assert (await asked.get("/other/")).text == "not about tasks"


async def test_looking_again_adds_only_new_routes(owner: Owner) -> None:
    app = installed(Mount("/tasks", http.make(owner, DEVELOPMENT)))
    app.mount("/again", http.make(owner, DEVELOPMENT))
    for _ in range(3):
        http.answer_without_slash(app)
    assert [getattr(route, "path", "") for route in app.routes] == ["/tasks"] * 2 + ["/again"] * 2


async def test_a_mount_at_the_root_works(owner: Owner, kit: TaskKit) -> None:
    id = await kit.enqueue(tasks.log_action, "mounted")
    app = installed(Mount("/", http.make(owner, DEVELOPMENT)))
    async with client(app) as asked:
        assert (await asked.get("/?limit=1")).json()["next"] == f"/?limit=1&after={id}"
        assert (await asked.get(f"/{id}")).status_code == 200
    assert http.path_in(app, owner) == ""


async def test_a_waiting_client_hears_the_end(owner: Owner, kit: TaskKit) -> None:
    id = await kit.enqueue(tasks.log_action, "mounted")
    app = installed(
        Mount("/tasks", http.make(owner, DEVELOPMENT)), middleware=[Middleware(Passing)]
    )
    async with client(app) as asked:
        assert (await asked.get(f"/tasks/{id}?wait=0.01")).json()["state"] == "queued"
        await kit.drain()
        assert (await asked.get(f"/tasks/{id}?wait=10")).json()["state"] == "succeeded"


async def test_a_refused_body_is_no_disconnect(owner: Owner, kit: TaskKit) -> None:
    mounted = http.make(owner, DEVELOPMENT)

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        async def refuse() -> Message:
            raise HTTPException(413)

        await mounted(scope, refuse, send)

    id = await kit.enqueue(tasks.log_action, "mounted")
    async with client(bounded) as asked:
        assert (await asked.get(f"/{id}?wait=10")).status_code == 413
        assert (await asked.get(f"/{id}")).status_code == 200


# --- where it is ---


@pytest.mark.parametrize(
    ("place", "path"),
    [
        *PLACES[:6],
        (lambda it: Mount("/t\xe2ches", it), "/t\xe2ches"),
        (lambda it: Mount("/{tenant}/tasks", it), None),
        (lambda it: Host("admin.test", it), None),
        (lambda it: Mount("/tasks", Starlette()), None),
        (lambda it: Route("/tasks/{id}", everybody), None),
    ],
)
def test_the_tree_tells_the_mounts_path(
    place: Callable[[ASGIApp], BaseRoute], path: str | None
) -> None:
    owner: Any = object()
    app = Starlette(routes=[Route("/tasks", everybody), place(http.make(owner, DEVELOPMENT))])
    assert http.path_in(app, owner) == path


def test_each_owner_finds_its_own_path() -> None:
    first, second, third = (object(), object(), object())
    routes = [
        Mount("/one", http.make(first, DEVELOPMENT)),  # type: ignore[arg-type]
        Mount("/two", http.make(second, DEVELOPMENT)),  # type: ignore[arg-type]
    ]
    app = installed(*routes)
    assert [http.path_in(app, each) for each in (first, second, third)] == ["/one", "/two", None]  # type: ignore[arg-type]


# --- errors ---


def problem(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == response.status_code
    assert {"type", "title", "detail"} <= body.keys()
    return body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/tasks/task-1", 404),
        ("GET", "/tasks/task-1/nothing", 404),
        ("GET", "/tasks/a/b/c/", 404),
        ("POST", "/tasks", 405),
        ("POST", "/tasks/", 405),
        ("PUT", "/tasks/task-1", 405),
        ("GET", "/tasks/task-1/retry/", 405),
        ("DELETE", "/tasks/{id}", 409),
        ("POST", "/tasks/{id}/retry", 409),
        ("GET", "/tasks?" + "a=1&" * 513, 414),
        ("GET", "/tasks?state=lost", 422),
        ("GET", "/tasks/{id}?wait=soon", 422),
    ],
)
async def test_errors_are_problems_without_any_handler(
    owner: Owner, kit: TaskKit, method: str, path: str, status: int
) -> None:
    id = await kit.enqueue(tasks.log_action, "mounted")
    await kit.drain()
    async with client(installed(Mount("/tasks", http.make(owner, DEVELOPMENT)))) as asked:
        response = await asked.request(method, path.format(id=id))
    assert response.status_code == status
    assert ("errors" in problem(response)) == (status == 422)
    assert ("allow" in response.headers) == (status == 405)


async def test_a_405_names_all_right_methods(owner: Owner) -> None:
    async with client(installed(Mount("/tasks", http.make(owner, DEVELOPMENT)))) as asked:
        allowed = (await asked.put("/tasks/task-1")).headers["allow"]
    assert {*allowed.split(", ")} == {"GET", "HEAD", "DELETE"}


@pytest.mark.parametrize("is_mounted", [True, False])
async def test_without_its_database_it_says_503(is_mounted: bool, kit: TaskKit) -> None:
    owner = Owner(kit)
    database = Database("postgres://127.0.0.1:1/none")
    owner.store = Store(database)
    listed = http.routes(owner, DEVELOPMENT, prefix="/tasks")
    routes = [Mount("/tasks", http.make(owner, DEVELOPMENT))] if is_mounted else listed
    async with client(installed(*routes)) as asked:
        for method, path in (("GET", ""), ("GET", "/task-1"), ("DELETE", "/task-1")):
            response = await asked.request(method, f"/tasks{path}")
            assert response.status_code == 503
            assert problem(response)
            assert int(response.headers["retry-after"]) > 0
    await owner.store.close()
    await database.close()


async def test_a_bugs_problem_tells_nothing() -> None:
    app = installed(Mount("/tasks", http.make(object(), DEVELOPMENT)))  # type: ignore[arg-type]
    async with client(app) as asked:
        response = await asked.get("/tasks")
    assert response.status_code == 500
    assert "attribute" not in problem(response)["detail"]


# --- operators ---


@pytest.mark.parametrize(
    "wrong", ["", "Bearer", "Bearer wrong", "Bearer \xfc", f"Basic {TOKEN}", TOKEN]
)
async def test_with_a_token_operators_need_it(owner: Owner, kit: TaskKit, wrong: str) -> None:
    id = await kit.enqueue(tasks.log_action, "mounted")
    headers = {"authorization": wrong.encode("latin-1")} if wrong else {}
    async with client(installed(Mount("/tasks", http.make(owner, Operators(TOKEN))))) as asked:
        for method, path in (
            *(("GET", ""), ("DELETE", f"/{id}"), ("GET", "/changes")),
            *(("POST", f"/{id}/retry"), ("GET", f"/{id}/arguments")),
        ):
            response = await asked.request(method, f"/tasks{path}", headers=headers)  # type: ignore[arg-type]
            if response.status_code != 429:  # the fifth wrong one has to wait
                assert (response.status_code, response.headers["www-authenticate"]) == (
                    *(401, "Bearer"),
                )
            assert problem(response)
    assert (await kit.store.get(id)).state == "queued"


async def test_any_spelling_of_bearer_is_taken(owner: Owner) -> None:
    async with client(installed(Mount("/tasks", http.make(owner, Operators(TOKEN))))) as asked:
        for scheme in ("Bearer ", "bearer ", "BEARER   "):
            headers = {"authorization": f"{scheme}{TOKEN}".encode()}
            assert (await asked.get("/tasks", headers=headers)).status_code == 200  # type: ignore[arg-type]


async def test_a_tasks_page_needs_no_token(owner: Owner, kit: TaskKit) -> None:
    id = await kit.enqueue(tasks.log_action, "mounted")
    async with client(installed(Mount("/tasks", http.make(owner, Operators(TOKEN))))) as asked:
        assert (await asked.get(f"/tasks/{id}")).status_code == 200


@pytest.mark.parametrize("token", ["", "short", "sixteen but \N{SNOWMAN} ice"])
def test_a_useless_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match=r"^token: "):
        Afterwards().http(token=token)
