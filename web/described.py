"""What each route does, for OpenAPI: a table beside the routes.

A new route needs an entry here, or a line in `UNDESCRIBED` with the reason; a test names those that
have neither. The key is the method and the path as the route has it. Bodies and queries are told by
the very model that reads them, answers by a model of `web/shapes.py`. Which problems follow from
these, from the method and from `tasks=`, `web/openapi.py` knows; `problems=` has the route's own. A
new word in a path or a query, a new header, status or security scheme is told once, in
`web/parts.py`.
"""

from typing import Any

from afterwards.http import api
from web import bodies, shapes
from web.openapi import JSON, PROBLEM, Answer, Operation
from web.parts import TASK_ID

HTML, TEXT = "text/html", "text/plain"
OPERATOR = ("operator",)

UNDESCRIBED = {
    "GET /docs": "a page for people: these descriptions",
    "GET /redoc": "a page for people: these descriptions",
    "GET /openapi.json": "this document",
    "GET /static/{name}": "what those pages are made of",
}

WORKER = {"status": "ok", "queued": 0, "oldest_waiting": 0.0, "running": 1, "rate": 1.3}
HEALTH = {"status": "ok", "database": "ok", "worker": WORKER, "tracing": "off"}
INDEX = {"name": "starlette-background-tasks", "version": "0.2.0", "status": "ok"}
ADA = {"email": "ada@example.com", "username": "ada"}
MOMENT = "2026-11-20T23:34:12.123456Z"
USER = {"id": 1, **ADA, "created_at": MOMENT}
IMAGE = {
    "image_url": "https://www.python.org/static/img/python-logo.png",
    "operations": ["resize", "watermark", "compress"],
}
PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")
TASK: dict[str, Any] = {
    "id": TASK_ID,
    "name": "background_sleep_task",
    "state": "succeeded",
    "attempt": 1,
    "max_attempts": 5,
    "crashes": 0,
    "created_at": MOMENT,
    "run_at": MOMENT,
    "started_at": MOMENT,
    "finished_at": "2026-11-20T23:34:22.123456Z",
    "trace_id": None,
    "result": None,
    "error": None,
}
DEAD = TASK | {"state": "dead", "attempt": 5, "error": {"kind": "OSError", "message": "no route"}}
QUEUED = DEAD | {"state": "queued", "attempt": 0, "finished_at": None, "error": None}
NO_TASK = "There is no such task: it never was, or it settled long ago and was pruned."


def _json(shape: Any, example: Any, description: str, status: int = 200) -> Answer:
    return Answer(status, description, {JSON: shape}, example)


def _processing(example: Any, shape: Any = shapes.Processing) -> Answer:
    return _json(
        shape, {"status": "processing", **example}, "It is on disk, and will be done.", 202
    )


ADDED = _json(shapes.User, USER, "The user; the mail follows.", 201)
TAKEN = {409: "Another user has the address or the name, or the Idempotency-Key is under way."}

OPERATIONS = {
    "GET /": Operation(
        "Say what this is, and list the routes",
        "service",
        Answer(
            200,
            "The service; to a browser, a page with links.",
            {JSON: shapes.Index, HTML: str},
            INDEX | {"routes": ["GET /test"]},
            ("Vary",),
        ),
    ),
    "GET /health": Operation(
        "Tell how each part is",
        "service",
        _json(shapes.Health, HEALTH, "All that is needed is there."),
        other=Answer(
            503,
            "The database cannot be reached.",
            {JSON: shapes.Health, PROBLEM: shapes.Problem},
            HEALTH | {"status": "down", "database": "down"},
        ),
    ),
    "GET /test": Operation(
        "Answer ok, then sleep",
        "answered at once",
        Answer(200, "ok", {TEXT: str}),
        "The task behind it sleeps for ten seconds.",
        tasks=1,
    ),
    "POST /api/notifications/notify": Operation(
        "Send a notification afterwards",
        "answered at once",
        _json(
            shapes.Notified,
            {"ok": True, "message": "Notification scheduled in background"},
            "The notification is on disk, and will be sent.",
        ),
        tasks=1,
    ),
    "GET /users/": Operation(
        "List users",
        "users",
        _json(list[shapes.User], [USER], "Users by rising id."),
        query=bodies.Page,
    ),
    "POST /users/": Operation(
        "Add a user",
        "users",
        ADDED,
        "A welcome mail follows; to the log, as long as no mail service is set up.",
        body=bodies.NewUser,
        example=ADA,
        tasks=1,
        problems=TAKEN,
    ),
    "POST /users/with-notifications/": Operation(
        "Add a user and announce them",
        "users",
        ADDED,
        "A welcome mail and a message on Discord follow, each by itself.",
        body=bodies.NewUser,
        example=ADA,
        tasks=2,
        problems=TAKEN,
    ),
    "POST /process-image/": Operation(
        "Fetch and edit a picture afterwards",
        "pictures",
        _processing({"job_id": TASK_ID}, shapes.ImageJob),
        "The operations are applied in the order given, each once at most. Pictures come from"
        " public addresses only.",
        body=bodies.ImageOrder,
        example=IMAGE,
        tasks=1,
    ),
    "GET /images/{job_id}": Operation(
        "Show an edited picture",
        "pictures",
        Answer(200, "The picture.", dict.fromkeys(PICTURES, bytes)),
        problems={404: "It is not ready yet, or its task failed."},
    ),
    "POST /sync-task/": Operation(
        "Work, then answer",
        "answered at once",
        _json(shapes.Worked, {"status": "completed", "duration": 3.0}, "After the work."),
        "This one blocks on purpose: three seconds, to compare with `/async-task/`.",
    ),
    "POST /async-task/": Operation(
        "Answer, then work",
        "answered at once",
        _processing({"task_id": TASK_ID}, shapes.Accepted),
        tasks=1,
    ),
    "POST /action": Operation(
        "Enqueue a task that only logs", "answered at once", _processing({}), tasks=1
    ),
    "POST /complex-action": Operation(
        "Enqueue three tasks that run side by side",
        "answered at once",
        _processing({"tasks": 3}, shapes.ThreeTasks),
        tasks=3,
    ),
    "POST /process": Operation(
        "Process any object that has an id",
        "answered at once",
        _json(shapes.ItemAccepted, {"status": "accepted", "id": 7}, "It will be processed.", 202),
        body=bodies.Item,
        example={"id": 7, "anything": "else"},
        tasks=1,
    ),
    "GET /tasks": Operation(
        "List tasks, newest first",
        "tasks",
        _json(
            shapes.Tasks,
            {"tasks": [{**DEAD, "arguments": {}}], "next": f"/tasks?limit=1&after={TASK_ID}"},
            "The tasks, and the path of the next page.",
        ),
        "Long arguments are cut; `/tasks/{id}/arguments` has them whole.",
        query=api._Page,
        security=OPERATOR,
    ),
    "GET /tasks/{id}": Operation(
        "Tell how a task stands",
        "tasks",
        _json(shapes.Task, TASK, "The task."),
        query=api._Wait,
        problems={404: NO_TASK},
    ),
    "DELETE /tasks/{id}": Operation(
        "Cancel a task",
        "tasks",
        _json(shapes.Task, DEAD | {"state": "cancelled"}, "It is cancelled."),
        security=OPERATOR,
        problems={404: NO_TASK, 409: "It has settled."},
    ),
    "GET /tasks/{id}/arguments": Operation(
        "Show a task's whole arguments",
        "tasks",
        _json(dict[str, Any], {"email": "ada@example.com"}, "As they are stored."),
        security=OPERATOR,
        problems={404: NO_TASK},
    ),
    "POST /tasks/{id}/retry": Operation(
        "Queue a dead or cancelled task anew",
        "tasks",
        Answer(
            202, "It is queued, with all its attempts.", {JSON: shapes.Task}, QUEUED, ("Location",)
        ),
        security=OPERATOR,
        problems={404: NO_TASK, 409: "It is neither dead nor cancelled."},
    ),
}
