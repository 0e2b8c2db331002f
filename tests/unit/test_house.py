"""The house stands as docs/design.md draws it: imports run inwards, doors are single."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("afterwards", "effects", "settings", "web")
OURS = {*ROOMS, "asgi_app", "celery_app", "tasks", "tracing", "users"}
MODULES = sorted(
    [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
)

# Who may import what of ours; what is not listed may import nothing of ours but its own room.
MAY_IMPORT = {
    "asgi_app": OURS - {"asgi_app", "celery_app"},
    "celery_app": OURS - {"asgi_app", "celery_app"},
    "tasks": {"effects", "users", "afterwards", "settings"},
    "tracing": {"afterwards", "settings"},
    "users": {"afterwards.store"},
    "afterwards": {"afterwards"},
    "effects": {"effects"},
    "settings": {"settings"},
    "web": {"afterwards", "settings", "web"},
    # The users' own part of the door, moved out of asgi_app.
    "web.accounts": {"afterwards", "web", "users", "tasks"},
    "web.authentication": {"afterwards", "web", "users"},
}

# Outside things, and the modules that are their only doors; a folder stands for all that is in it.
DOORS = {
    "skywalking": {"afterwards.skywalking.agent"},
    "grpc": set(),  # the agent's own affair
    # The rest of the library names only its connections, which callers bring; tracing hears of
    # statements through its events.
    "sqlalchemy": {
        *("afterwards.store", "afterwards.app", "afterwards.erasing", "users"),
        *("afterwards.skywalking", "afterwards.tracing"),
    },
    "asyncpg": {"afterwards.store"},
    "celery": {"afterwards.brokers.celery", "afterwards.brokers.celery_worker"},
    "kombu": {"afterwards.brokers.celery"},
    "billiard": {"afterwards.brokers.celery_worker"},
    "redis": {"afterwards.brokers.celery"},
    "starlette": {
        *("asgi_app", "web", "tracing", "afterwards.skywalking", "afterwards.http"),
        *("afterwards.app", "afterwards.installation", "afterwards.request_tasks"),
        *("afterwards.background", "afterwards.idempotency", "afterwards.tracing"),
        *("afterwards.errors", "afterwards.problems", "afterwards.request_bodies"),
    },
    "uvicorn": {"asgi_app", "web.connections", "web.proxies"},
    "limits": {"web.counting", "web.quotas", "web.rates"},
    "cryptography": {"afterwards.sealing"},
    "httpx": {"effects"},
    "PIL": {"effects"},
    "itsdangerous": {"afterwards.http.sessions"},
    "aiosmtplib": {"effects"},
    "argon2": {"web.passwords"},
    "jwt": {"web.tokens"},
    "pydantic": {
        *("settings", "web"),
        *("afterwards.registry", "afterwards.secrecy", "afterwards.http"),
    },
}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_run_inwards(path: Path) -> None:
    name = _name(path)
    allowed = MAY_IMPORT.get(name, MAY_IMPORT.get(name.split(".")[0], set()))
    ours = {name for name in _imports(path) if name.split(".")[0] in OURS}
    assert not {name for name in ours if not _is_within(name, allowed)}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_each_outside_thing_has_one_door(path: Path) -> None:
    outside = {name.split(".")[0] for name in _imports(path)} & set(DOORS)
    assert not {name for name in outside if not _is_within(_name(path), DOORS[name])}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if _name(path) != "settings.reading"], ids=_name
)
def test_only_settings_reads_the_environment(path: Path) -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert not used & {"environ", "getenv"}


# A child and a command end themselves; the watchdog is for a process that asks for it.
MAY_EXIT = {"afterwards.isolation.child", "afterwards.__main__", "afterwards.watchdog"}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.is_relative_to(ROOT / "afterwards")], ids=_name
)
def test_the_library_ends_no_process(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not used & {"_exit", "exit", "abort"} or _name(path) in MAY_EXIT


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    assert first.endswith(".")


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_nothing_imports_what_is_for_tests(path: Path) -> None:
    for_tests = {"afterwards.testing"}
    assert _is_within(_name(path), for_tests) or not {
        name for name in _imports(path) if _is_within(name, for_tests)
    }


def test_the_rules_notice_a_wrong_import() -> None:
    assert not _is_within("effects.mail", MAY_IMPORT["afterwards"])
    assert not _is_within("afterwards.model", DOORS["skywalking"])
    assert _is_within("afterwards.slots", MAY_IMPORT["afterwards"])
