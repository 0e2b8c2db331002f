"""Real answers, held against the service's own OpenAPI document."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator

import asgi_app
from web.described import OPERATIONS
from web.openapi import Json, document


@cache
def described() -> Json:
    """Return the service's document."""
    return document(asgi_app.app.routes, OPERATIONS, {"title": "service", "version": "1"})


@cache
def _validator() -> Any:
    return Draft202012Validator(described())


def resolved(part: Json) -> Json:
    """Return the part of the document, or what it refers to."""
    found: Any = described()
    for name in part.get("$ref", "#/").split("/")[1:]:
        found = found[name] if name else part
    return dict(found)


def operation(method: str, path: str) -> Json | None:
    """Return the description of what answers at a path; None where nothing does."""
    for template, methods in sorted(described()["paths"].items(), key=lambda each: "{" in each[0]):
        pattern = re.sub(r"{\w+}", "[^/]+", template.rstrip("/"))
        if re.fullmatch(f"{pattern}/?", path):
            found: Json | None = methods.get(method.lower())
            return found
    return None


def wrong(value: Any, schema: Json) -> list[str]:
    """List what is wrong with a value, by the schema."""
    errors = _validator().evolve(schema=schema).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in errors]


def complaints(response: httpx.Response) -> list[str]:
    """List where an answer is not as it is described; nothing of what no description is for."""
    request = response.request
    told = operation(request.method, request.url.path)
    if told is None:
        return []
    name = f"{request.method} {request.url.path}, {response.status_code}"
    answer = told["responses"].get(str(response.status_code))
    if answer is None:
        return [f"{name}: the status is not described"]
    return [f"{name}: {each}" for each in _differences(response, resolved(answer))]


def _differences(response: httpx.Response, told: Json) -> Iterator[str]:
    kind = response.headers.get("content-type", "").partition(";")[0]
    if not told["content"]:
        yield from ["it has a body"] if response.content else []
    elif kind not in told["content"]:
        yield f"its type is {kind}"
    elif kind.endswith("json"):
        yield from wrong(response.json(), told["content"][kind]["schema"])
    for name, header in told["headers"].items():
        header, value = resolved(header), response.headers.get(name)
        if value is not None:
            typed = int(value) if header["schema"]["type"] == "integer" else value
            yield from wrong(typed, header["schema"])
        elif header.get("required"):
            yield f"{name} is missing"


async def check(response: httpx.Response) -> None:
    """Raise AssertionError for an answer that is not as it is described; httpx calls this."""
    await response.aread()
    assert not complaints(response)
