"""What answers hold, as models that describe them; a test holds every real answer against these."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")
State = Literal["queued", "running", "retrying", "succeeded", "dead", "cancelled"]


class Shape(BaseModel):
    """An answer that has these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Place(Shape):
    pointer: str
    detail: str


class Problem(Shape):
    """What went wrong, as RFC 9457 has it; `errors` points at each wrong field."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Place] = []


class Index(Shape):
    name: str
    version: str
    status: Literal["ok"]
    routes: list[str]


class Worker(Shape):
    status: str
    running: int
    rate: float
    queued: int | None = None
    oldest_waiting: float | None = None


class Health(Shape):
    status: Literal["ok", "down"]
    database: Literal["ok", "down"]
    worker: Worker
    tracing: str


class Notified(Shape):
    ok: Literal[True]
    message: str


class User(Shape):
    id: int
    email: str
    username: str
    created_at: datetime


class ImageJob(Shape):
    job_id: str
    status: Literal["processing"]


class Worked(Shape):
    status: Literal["completed"]
    duration: float


class Accepted(Shape):
    task_id: str
    status: Literal["processing"]


class Processing(Shape):
    status: Literal["processing"]


class ThreeTasks(Processing):
    tasks: int


class ItemAccepted(Shape):
    status: Literal["accepted"]
    id: Any


class TokenForm(BaseModel):
    """What is asked at /token; a form, which has no types."""

    grant_type: Literal["password"]
    username: str
    password: str


class Token(Shape):
    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int


class NoToken(Problem):
    """A problem, and what RFC 6749 has in its place (section 5.2)."""

    error: Literal["invalid_request", "invalid_grant", "invalid_scope", "unsupported_grant_type"]
    error_description: str


class Lost(Shape):
    status: Literal["accepted"]


class Error(Shape):
    kind: str
    message: str


class Task(Shape):
    """How a task stands."""

    id: str
    name: str
    state: State
    attempt: int
    max_attempts: int
    crashes: int
    created_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    trace_id: str | None
    result: Any
    error: Error | None


class ListedTask(Task):
    arguments: Any


class Tasks(Shape):
    tasks: list[ListedTask]
    next: str | None


class Change(Shape):
    """What an operator changed, or, of a change of many tasks, a part of it."""

    id: str
    at: datetime
    who: str
    address: str
    what: str
    which: list[str]


class Changes(Shape):
    changes: list[Change]
    next: str | None
