"""What the descriptions of routes share: their words in paths and queries, headers, problems."""

from typing import Any

from afterwards.idempotency import MAX_KEY

TASK_ID = "task-20261120-233412-123456-0123456789abcdef"
ID = r"task-\d{8}-\d{6}-\d{6}-[0-9a-f]{16}"

TAGS = {
    "tasks": "What came of a task, and what an operator can do about it.",
    "answered at once": "The answer comes first, and the work afterwards.",
    "users": "A user and the welcome mail are one commit.",
    "pictures": "Fetched, edited and kept under the id of the task that does it.",
    "service": "About the service itself.",
}

# By name; where a name means another thing below some path, by `path.name`.
PARAMETERS: dict[str, dict[str, Any]] = {
    "id": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The task's id, as `Task-Id` told it. Whoever knows it may see the task.",
        "schema": {"type": "string"},
        "example": TASK_ID,
    },
    "users.id": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The user's id.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 1,
    },
    "job_id": {
        "name": "job_id",
        "in": "path",
        "required": True,
        "description": "The id that `POST /process-image/` answered.",
        "schema": {"type": "string"},
        "example": TASK_ID,
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A text of your own. The same key gives the same tasks and the same answer,"
        " however often the request is sent.",
        "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[ -~]+$"},
    },
}

QUERY = {
    "after": "The last id that you have: the page begins behind it.",
    "before": "Only tasks that were created before this moment.",
    "error": "Only tasks whose last error has this text in it, its kind or its message.",
    "limit": "So many at most.",
    "name": "Only tasks of this name.",
    "state": "Only tasks in this state.",
    "wait": "Seconds to wait for the task's end before the answer, 25 at most.",
}

# By name; what follows a dot tells two of one name apart.
HEADERS: dict[str, dict[str, Any]] = {
    "Task-Id": {
        "description": "The ids of the tasks that the request enqueued, each committed by now.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{ID}(, {ID})*$"},
        "example": TASK_ID,
    },
    "Location": {
        "description": "Where the task tells how it stands.",
        "required": True,
        "schema": {"type": "string", "pattern": f"/{ID}$"},
        "example": f"/tasks/{TASK_ID}",
    },
    "Location.login": {
        "description": "Where to log in.",
        "schema": {"type": "string", "pattern": "/login"},
        "example": "/tasks/login?next=%2Ftasks",
    },
    "RateLimit": {
        "description": "What is left until when, as the draft of the IETF has it.",
        "schema": {"type": "string"},
        "example": '"client";r=0;t=12',
    },
    "RateLimit-Policy": {
        "description": "How many may come in how many seconds.",
        "schema": {"type": "string"},
        "example": '"client";q=100;w=60',
    },
    "Retry-After": {
        "description": "The seconds after which to send the request again.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 5,
    },
    "WWW-Authenticate": {
        "description": "How to say who you are.",
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    "Vary": {
        "description": "The answer depends on this header of the request.",
        "required": True,
        "schema": {"type": "string"},
        "example": "Accept",
    },
}

SCHEMES: dict[str, dict[str, Any]] = {
    "operator": {
        "type": "http",
        "scheme": "bearer",
        "description": "An operator's token: one of `ADMIN_TOKEN`, or, to read, of"
        " `ADMIN_READ_TOKEN`. A browser that is logged in at `/tasks/login` needs none to read, nor"
        " does a machine for development (`DEVELOPMENT=1`).",
    },
    "user": {
        "type": "oauth2",
        "flows": {"password": {"tokenUrl": "/token", "scopes": {}}},
        "description": "A user's token, where `JWT_SECRET` is set: then it is needed. Without it"
        " there are none.",
    },
}

# By status: what it means, the detail of its example, and the headers that it may bear.
PROBLEMS: dict[int, tuple[str, ...]] = {
    303: (
        "A browser that is not logged in is led to the login.",
        "Send an operator's token as Authorization: Bearer, or log in with a browser.",
        "Location.login",
    ),
    400: ("The request is broken.", "The body is not JSON: EOF while parsing a value."),
    401: (
        "This needs a token, and the right one.",
        "Send an operator's token as Authorization: Bearer, or log in with a browser.",
        "WWW-Authenticate",
    ),
    403: (
        "This is not for you, or a page of another origin asks for it.",
        "A page of another origin sent this; CORS_ORIGINS says of which it may.",
    ),
    404: ("There is none.", "There is nothing at this path."),
    408: ("The body did not come in time.", "The body was not there after 10 s."),
    409: (
        "Another request with this Idempotency-Key is under way.",
        "Idempotency-Key: the first request with this Idempotency-Key is under way;"
        " send it again in a moment.",
        "Retry-After",
    ),
    413: ("The body is too large.", "A body may have 16384 bytes at most here."),
    414: ("The query is too long.", "A query string may have 2048 bytes at most."),
    415: ("The body is of another type.", "Send the body as application/json."),
    422: (
        "Some fields are wrong, or the Idempotency-Key cannot be used.",
        "Some fields are wrong; errors lists them.",
    ),
    421: (
        "The service does not answer to this Host.",
        "This service does not answer to that Host; ALLOWED_HOSTS says to which.",
    ),
    429: (
        "Too many came.",
        "No more than 100 requests from one client in 60 s; nothing was done."
        " Retry-After says when to come back.",
        *("Retry-After", "RateLimit", "RateLimit-Policy"),
    ),
    431: (
        "The request's head is too large.",
        "A request's head may have 65536 bytes and 100 fields at most.",
    ),
    500: (
        "The service failed.",
        "The service failed; the request may be sent again. Its log holds the reason.",
    ),
    503: (
        "Nothing was accepted: the database is away, or too many tasks wait.",
        "The database cannot be reached; nothing was done. Send the request again later.",
        "Retry-After",
    ),
}
WRONG_FIELD = {"pointer": "#/email", "detail": "An email address must have an @-sign."}
