"""uvicorn has under their names what `web.connections` takes from it, some of it private."""

import asyncio
import inspect
from collections.abc import Callable

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from web.connections import GuardedProtocol, guard

pytestmark = pytest.mark.usefixtures("anyio_backend")


async def app(scope: object, receive: object, send: object) -> None: ...


async def make(kind: type[HttpToolsProtocol]) -> HttpToolsProtocol:
    return kind(Config(app), ServerState(), {}, _loop=asyncio.get_running_loop())


@pytest.mark.parametrize(
    ("name", "parameters"),
    {
        "connection_made": ["transport"],
        "connection_lost": ["exc"],
        "data_received": ["data"],
        "on_headers_complete": [],
        "on_body": ["body"],
        "send_400_response": ["msg"],
        "handle_websocket_upgrade": [],
        "_unset_keepalive_if_required": [],
    }.items(),
)
def test_uvicorn_has_the_replaced_methods(name: str, parameters: list[str]) -> None:
    method: Callable[..., object] = getattr(HttpToolsProtocol, name)
    assert list(inspect.signature(method).parameters) == ["self", *parameters]


async def test_uvicorn_has_the_state_we_read() -> None:
    protocol = await make(HttpToolsProtocol)
    names = "connections cycle flow headers loop pipeline server_state"
    names += " timeout_keep_alive timeout_keep_alive_task"
    assert vars(protocol).keys() >= {*names.split(), "transport"}
    assert hasattr(protocol.server_state, "default_headers")
    assert hasattr(FlowControl, "resume_reading")
    source = inspect.getsource(RequestResponseCycle)
    names = (
        "disconnected keep_alive message_event more_body response_complete response_started "
        "waiting_for_100_continue"
    )
    for name in names.split():
        assert f"self.{name} = " in source


async def test_only_uvicorns_own_class_is_guarded() -> None:
    class Theirs(HttpToolsProtocol):
        pass

    guard()
    assert type(await make(HttpToolsProtocol)) is GuardedProtocol
    assert type(await make(Theirs)) is Theirs
