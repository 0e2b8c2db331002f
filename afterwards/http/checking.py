"""What a client sends, checked by a pydantic model, with a pointer to each bad field."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from afterwards.problems import FieldError, Problem

MAX_QUERY = 2048  # bytes of a query string
MAX_FIELDS = 1000  # of an object: each that is unknown becomes an error
MAX_ERRORS = 20  # in an answer: a thousand wrong fields would make it larger than the body

Model = TypeVar("Model", bound=BaseModel)


def query(request: Request, model: type[Model]) -> Model:
    """Read the query string as `model`; raise a `Problem` (414, 422) that says what is wrong."""
    if len(request.scope["query_string"]) > MAX_QUERY:
        raise Problem(414, f"A query string may have {MAX_QUERY} bytes at most.")
    return checked(model, dict(request.query_params))


def checked(model: type[Model], value: object) -> Model:
    """Read the value as `model`; raise a `Problem` (422) that lists what is wrong."""
    if isinstance(value, dict) and len(value) > MAX_FIELDS:
        raise Problem(422, f"An object may have {MAX_FIELDS} fields at most.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Problem(
            422, "Some fields are wrong; errors lists them.", _field_errors(error)
        ) from None


def _field_errors(error: ValidationError) -> list[FieldError]:
    return [
        {"pointer": _pointer(each["loc"]), "detail": each["msg"].removeprefix("Value error, ")}
        for each in error.errors(include_url=False, include_input=False)[:MAX_ERRORS]
    ]


def _pointer(location: tuple[int | str, ...]) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return "#" + "".join(f"/{part}" for part in parts)
