"""What a request's body may hold: read, checked, and refused with a pointer to each bad field."""

import email.message
import json
import unicodedata
from typing import Annotated, Any, Literal, TypeVar

import email_validator
import pydantic_core
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl
from starlette.requests import Request

from afterwards.http.checking import checked
from afterwards.problems import Problem
from afterwards.request_bodies import in_time
from web import passwords

# Characters: `email.message` takes the square of its length for one of many semicolons.
MAX_CONTENT_TYPE = 200
# Characters of an e-mail address (RFC 5321): normalising long runs of marks takes their square.
MAX_ADDRESS = 254
MAX_NAME = 64  # characters

AS_JSON = (
    "Send the body as JSON, and say so in the header Content-Type: application/json. "
    "(curl -d says that it is a form, unless it is told otherwise with -H.)"
)


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
        # 1e999 is read as infinity.
        raise ValueError("A number here is too large to be kept.") from None
    return value


class Body(BaseModel):
    """A body whose fields are all named, and of exactly their types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewUser(Body):
    # The length first: pydantic checks in the order in which they stand here.
    email: Annotated[str, Field(max_length=MAX_ADDRESS), AfterValidator(_address)]
    username: Annotated[
        str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_without_control_characters)
    ]


class NewUserWithPassword(NewUser):
    password: Annotated[
        str,
        Field(min_length=passwords.MIN_LENGTH, max_length=passwords.MAX_LENGTH),
        AfterValidator(_without_control_characters),
    ]


def _once_each(values: list[Any]) -> list[Any]:
    if len(values) > len({*values}):
        raise ValueError("Each operation may stand here once.")
    return values


class ImageOrder(Body):
    image_url: HttpUrl
    operations: Annotated[
        list[Literal["resize", "compress", "watermark"]],
        Field(min_length=1, max_length=3),
        AfterValidator(_once_each),
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
    # An id is a signed 64-bit integer in the database.
    after: Annotated[int, Field(ge=0, lt=2**63)] = 0


Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request, model: type[Model]) -> Model:
    """Read the JSON body as `model`; raise a `Problem`, 400, 408, 413, 415 or 422.

    A body without a Content-Type is a 415, too: any page may have a browser send one.
    """
    _refuse_other_types(request.headers.get("content-type", ""))
    try:
        value = pydantic_core.from_json(await whole(request), allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}.") from None
    return checked(model, value)


async def whole(request: Request) -> bytes:
    """Read the body within ten seconds; raise a `Problem`, 408, if it is not there by then."""
    async with in_time():
        return await request.body()


def _refuse_other_types(content_type: str) -> None:
    if len(content_type) > MAX_CONTENT_TYPE:
        raise Problem(415, f"A Content-Type may have {MAX_CONTENT_TYPE} characters at most.")
    header = email.message.Message()
    header["Content-Type"] = content_type
    kind, charset = header.get_content_type(), header.get_content_charset("utf-8")
    if not (kind.startswith("application/") and kind.endswith(("/json", "+json"))):
        raise Problem(415, AS_JSON)
    if charset not in ("utf-8", "utf8"):
        raise Problem(415, "Send the body in UTF-8.")
