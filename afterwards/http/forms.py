"""A form that a browser posts, read without a package for it."""

from urllib.parse import parse_qs

from starlette.requests import Request

from afterwards.problems import Problem
from afterwards.request_bodies import counted, in_time

FORM = "application/x-www-form-urlencoded"
MAX_FORM = 8 * 1024  # bytes
MAX_FIELDS = 100


async def read_form(request: Request, most: int = MAX_FORM) -> dict[str, str]:
    """Read the form, the last of each field; raise a `Problem` (408, 413, 415, 422)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem(415, f"Send a form, as {FORM}.")
    limited = Request(request.scope, counted(request.receive, most))
    async with in_time():
        body = await limited.body()
    try:
        fields = parse_qs(body.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Problem(422, f"A form may have {MAX_FIELDS} fields at most.") from None
    return {name: values[-1] for name, values in fields.items()}
