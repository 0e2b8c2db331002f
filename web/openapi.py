"""The OpenAPI 3.1 document: made of an application's routes and of what a table says of each.

The table is `web/described.py`; a new route gets its entry there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from starlette.routing import BaseRoute, Route

from web import parts
from web.shapes import Lost, Problem

JSON = "application/json"
PROBLEM = "application/problem+json"
METHODS = {"DELETE", "GET", "PATCH", "POST", "PUT"}

# The problems that follow from what an operation is; it says its own itself.
ANYWHERE = (400, 413, 421, 429, 431, 500, 503)
OF_CHANGE = (403,)  # which a page of another origin asks for
OF_POST = (408, 409, 422)  # an Idempotency-Key may come with any
OF_BODY = (408, 415, 422)
OF_QUERY = (414, 422)
OF_SECURITY = (401, 403)

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """An answer that is no problem; `content` is the type of its body by media type."""

    status: int
    description: str
    content: Mapping[str, Any]
    example: Any = None  # of its JSON
    headers: tuple[str, ...] = ()  # beside those that tell of tasks


@dataclass(frozen=True)
class Operation:
    """What a method does at a path."""

    summary: str
    tag: str
    answer: Answer
    description: str = ""
    query: type[BaseModel] | None = None
    body: Any = None  # a model, or several
    media_type: str = JSON  # of the body
    example: Any = None  # of the body
    tasks: int = 0  # that it enqueues
    other: Answer | None = None
    security: tuple[str, ...] = ()  # schemes, of which one is enough; "" for none at all
    # Its own, with what each means here; an empty text for what it means everywhere.
    problems: Mapping[int, str] = field(default_factory=dict)

    @property
    def answers(self) -> list[Answer]:
        """List those that are no problems."""
        return [self.answer, *([self.other] if self.other else [])]


# To a second request with an Idempotency-Key, where the process died between commit and answer.
LOST = Answer(
    HTTPStatus.ACCEPTED,
    "The first request with this Idempotency-Key was accepted, and its own answer was lost.",
    {JSON: Lost},
    {"status": "accepted"},
)


class _Schemas(GenerateJsonSchema):
    """Pydantic's, without a title for each field, which is its name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def operations_of(routes: Iterable[BaseRoute]) -> Iterator[str]:
    """List what can be asked, such as `GET /users/`."""
    for route in routes:
        if isinstance(route, Route):
            # An HTTPEndpoint has those that it defines.
            methods = route.methods or {
                each for each in METHODS if hasattr(route.endpoint, each.lower())
            }
            yield from (f"{method} {route.path_format}" for method in sorted(methods - {"HEAD"}))


def document(routes: Iterable[BaseRoute], table: Mapping[str, Operation], info: Json) -> Json:
    """Describe those of the routes that are in the table."""
    found = {name: table[name] for name in operations_of(routes) if name in table}
    schemas, definitions = _schemas(found.values())
    paths: dict[str, Json] = {}
    for name, operation in found.items():
        method, path = name.split(" ")
        paths.setdefault(path, {})[method.lower()] = {
            "operationId": re.sub(r"\W+", "_", name.lower()).strip("_"),
            "summary": operation.summary,
            "description": operation.description or operation.summary,
            "tags": [operation.tag],
            "security": [{each: []} if each else {} for each in operation.security],
            "parameters": [*_parameters(method, path, operation)],
            **_body(operation, schemas),
            "responses": _problems(method, operation) | _answers(method, operation, schemas),
        }
    return {
        "openapi": "3.1.0",
        "info": info,
        "tags": [{"name": name, "description": text} for name, text in parts.TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "parameters": parts.PARAMETERS,
            "headers": parts.HEADERS,
            "responses": {f"Problem{each}": _problem(each) for each in parts.PROBLEMS},
            "securitySchemes": parts.SCHEMES,
        },
    }


def _schemas(operations: Iterable[Operation]) -> tuple[Json, Json]:
    """Make each type's schema, by the type's text, and the definitions that they refer to."""
    kinds: list[Any] = [Problem, Lost]
    inputs: dict[str, tuple[Any, Any]] = {}
    for each in operations:
        kinds += [kind for answer in each.answers for kind in answer.content.values()]
        if each.body:
            inputs[str(each.body)] = ("validation", each.body)
    inputs |= {str(kind): ("serialization", kind) for kind in kinds}
    made, found = TypeAdapter.json_schemas(
        [(key, mode, TypeAdapter(kind)) for key, (mode, kind) in inputs.items()],
        ref_template=_ref("schemas", "{model}")["$ref"],
        schema_generator=_Schemas,
    )
    return {key: schema for (key, _), schema in made.items()}, found["$defs"]


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _parameters(method: str, path: str, operation: Operation) -> Iterator[Json]:
    for name in re.findall(r"{(\w+)}", path):
        own = f"{path.split('/')[1]}.{name}"
        yield _ref("parameters", own if own in parts.PARAMETERS else name)
    if operation.tasks and method == "POST":
        yield _ref("parameters", "Idempotency-Key")
    if operation.query is not None:
        for name, schema in _fields(operation.query).items():
            yield {
                "name": name,
                "in": "query",
                "description": parts.QUERY[name],
                "schema": schema,
            }


def _fields(model: type[BaseModel]) -> Json:
    """Make the schemas of what a query may hold: null is nothing that it could say."""
    fields: Json = model.model_json_schema(schema_generator=_Schemas)["properties"]
    for name, schema in fields.items():
        if "anyOf" in schema:
            [fields[name]] = [each for each in schema["anyOf"] if each != {"type": "null"}]
    return fields


def _body(operation: Operation, schemas: Json) -> Json:
    if operation.body is None:
        return {}
    content = {"schema": schemas[str(operation.body)], "example": operation.example}
    return {"requestBody": {"required": True, "content": {operation.media_type: content}}}


def _answers(method: str, operation: Operation, schemas: Json) -> Json:
    told = {str(each.status): _answer(each, operation.tasks, schemas) for each in operation.answers}
    if operation.tasks and method == "POST":  # so that it may come with an Idempotency-Key
        lost = _answer(LOST, operation.tasks, schemas)
        accepted = told.setdefault("202", lost)["content"][JSON]
        if told["202"] is not lost:
            accepted["schema"] = {"anyOf": [accepted["schema"], schemas[str(Lost)]]}
    return told


def _answer(answer: Answer, tasks: int, schemas: Json) -> Json:
    content = {media: {"schema": schemas[str(kind)]} for media, kind in answer.content.items()}
    if JSON in content:
        content[JSON]["example"] = answer.example
    names = [*answer.headers]
    if tasks:
        names.append("Task-Id")
    if tasks == 1 and answer.status == HTTPStatus.ACCEPTED:
        names.append("Location")
    headers = _headers(names)
    return {"description": answer.description, "headers": headers, "content": content}


def _headers(names: Iterable[str]) -> Json:
    return {name.split(".")[0]: _ref("headers", name) for name in names}


def _problems(method: str, operation: Operation) -> Json:
    own = dict(operation.problems)
    statuses = {*ANYWHERE, *own, *(OF_POST if method == "POST" else ())}
    statuses |= {*(OF_BODY if operation.body else ()), *(OF_QUERY if operation.query else ())}
    statuses |= {*(OF_SECURITY if any(operation.security) else ())}
    statuses |= {*(OF_CHANGE if method != "GET" else ())}
    statuses |= {303} if method == "GET" and operation.security == ("operator",) else set()
    return {
        str(status): _problem(status, own[status])
        if own.get(status)
        else _ref("responses", f"Problem{status}")
        for status in sorted(statuses)
    }


def _problem(status: int, meaning: str = "") -> Json:
    usual, detail, *headers = parts.PROBLEMS[status]
    example: Json = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        example["errors"] = [parts.WRONG_FIELD]
    content = {"schema": _ref("schemas", "Problem"), "example": example}
    return {
        "description": meaning or usual,
        "headers": _headers(headers),
        "content": {PROBLEM: content},
    }
