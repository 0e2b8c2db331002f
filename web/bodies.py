"""What a request may hold: bodies and query strings, read, checked, and refused with a pointer to each bad field."""

import asyncio
import json
import unicodedata
from email.message import Message
from typing import Annotated, Any, Literal, TypeVar

import email_validator
import pydantic_core
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, ValidationError
from starlette.requests import Request

from web.problems import FieldError, Problem

MAX_BODY = 1024 * 1024  # bytes
READING_SECONDS = 10.0  # for a whole body: uvicorn's shutdown waits for a client that never sends the rest
MAX_ERRORS = 20  # an answer names no more, or a body of a thousand wrong fields would make a larger answer


def _address(text: str) -> str:
    try:
        return email_validator.validate_email(text, check_deliverability=False).normalized
    except email_validator.EmailNotValidError as error:
        raise ValueError(str(error)) from None


def _without_control_characters(text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("A control character is not allowed here.")
    return text


def _storable(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("A number here is too large to be kept.") from None  # 1e999 is read as infinity
    return value


class Body(BaseModel):
    """A body whose fields are all named, and of exactly their types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewUser(Body):
    email: Annotated[str, AfterValidator(_address)]
    username: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_without_control_characters)]


def _once_each(values: list[Any]) -> list[Any]:
    if len(values) > len({*values}):
        raise ValueError("Each operation may stand here once.")
    return values


class ImageOrder(Body):
    image_url: HttpUrl
    operations: Annotated[
        list[Literal["resize", "compress", "watermark"]], Field(min_length=1, max_length=3), AfterValidator(_once_each)
    ]


class Item(Body):
    """Any JSON object that has an "id"."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_storable)]]

    id: Annotated[Any, AfterValidator(_storable)]


class Page(BaseModel):
    """Which part of a list by rising id: so many, after that one."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Annotated[int, Field(ge=0, lt=2**63)] = 0  # an id is a signed 64-bit integer in the database


Model = TypeVar("Model", bound=BaseModel)


def refuse_large(request: Request) -> None:
    """Refuse a body that is announced as larger than `MAX_BODY`, also where nothing would read it."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > MAX_BODY:
        raise _too_large()


async def read(request: Request, model: type[Model]) -> Model:
    """Read the request's JSON body as `model`; raise a `Problem` (400, 408, 413, 415, 422) that says what is wrong."""
    _refuse_other_types(request.headers.get("content-type", ""))
    try:
        value = pydantic_core.from_json(await whole(request), allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}.") from None
    return _checked(model, value)


async def whole(request: Request) -> bytes:
    """Read the body, of 1 MiB at most and within ten seconds; raise a `Problem`, 408 or 413, for any other."""
    if not hasattr(request.state, "body"):
        try:
            async with asyncio.timeout(READING_SECONDS):
                # In `_body` too: there a handler finds it that reads it in Starlette's own way.
                request.state.body = request._body = await _received(request)
        except TimeoutError:
            detail = f"The body was not there after {READING_SECONDS:g} s."
            raise Problem(408, detail, headers={"Connection": "close"}) from None
    body: bytes = request.state.body
    return body


async def _received(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise _too_large()
    return bytes(body)


def _too_large() -> Problem:
    return Problem(413, f"A body may have {MAX_BODY} bytes at most.", headers={"Connection": "close"})


def query(request: Request, model: type[Model]) -> Model:
    """Read the query string as `model`; raise a `Problem` of 422 that says what is wrong."""
    return _checked(model, dict(request.query_params))


def _refuse_other_types(content_type: str) -> None:
    if not content_type:
        return
    header = Message()
    header["Content-Type"] = content_type
    kind, charset = header.get_content_type(), header.get_content_charset("utf-8")
    if not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))):
        raise Problem(415, "Send the body as application/json.")
    if charset not in ("utf-8", "utf8"):
        raise Problem(415, "Send the body in UTF-8.")


def _checked(model: type[Model], value: object) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Problem(422, "Some fields are wrong; errors lists them.", _field_errors(error)) from None


def _field_errors(error: ValidationError) -> list[FieldError]:
    return [
        {"pointer": _pointer(each["loc"]), "detail": each["msg"].removeprefix("Value error, ")}
        for each in error.errors(include_url=False, include_input=False)[:MAX_ERRORS]
    ]


def _pointer(location: tuple[int | str, ...]) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return "#" + "".join(f"/{part}" for part in parts)
