"""A body's size is checked before its contents, and no check costs a square of its length."""

from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from afterwards import problems
from tests.growth import is_linear
from web import bodies
from web.routing import Route

# To be put in order when they are normalised, which takes the square of their number.
MARKS = "\u0315\u0300\u05ae\u0300"


@pytest.mark.parametrize(
    "unit", [MARKS, "a", ".", "@", " ", '"', "<", "xn--", "\u1112", "1.", "a\u0300"]
)
@pytest.mark.parametrize(
    "form",
    ["{}", "a@{}", "a{}@example.com", "a@{}.com", "a@[{}]", "{} <a@example.com>", '"{}"@a.com'],
)
def test_users_fields_take_linear_time(form: str, unit: str) -> None:
    def check(text: str) -> None:
        for new in (
            {"email": form.format(text), "username": "a"},
            {"email": "a@example.com", "username": text},
        ):
            with pytest.raises(ValidationError):
                bodies.NewUser.model_validate(new)

    assert is_linear(check, unit, size=8000)


@pytest.mark.anyio
async def test_a_route_may_take_larger_bodies() -> None:
    async def measure(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 600_000
        yield b"x" * 400_000

    routes = [Route("/", measure, methods=["POST"], max_body=1_000_000)]
    app = Starlette(routes=routes, exception_handlers={HTTPException: problems.answer})
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        for body in (b"x" * 1_000_000, pieces()):
            assert (await client.post("/", content=body)).text == "1000000"
        assert (await client.post("/", content=b"x" * 1_000_001)).status_code == 413
