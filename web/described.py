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
from web import bodies, examples, oauth, shapes
from web.openapi import JSON, PROBLEM, Answer, Operation
from web.parts import TASK_ID

HTML, TEXT = "text/html", "text/plain"
OPERATOR = ("operator",)
USER = ("", "user")  # a user's token, where users have any

UNDESCRIBED = {
    "GET /docs": "a page for people: these descriptions",
    "GET /redoc": "a page for people: these descriptions",
    "GET /openapi.json": "this document",
    "GET /static/{name}": "what those pages are made of",
    "GET /tasks/login": "a page for an operator's browser",
    "POST /tasks/login": "that page's form",
    "GET /tasks/logout": "it leads to that page",
    "POST /tasks/logout": "that page's button",
}

NO_TASK = "There is no such task: it never was, or it settled long ago and was pruned."


def _json(shape: Any, example: Any, description: str, status: int = 200) -> Answer:
    return Answer(status, description, {JSON: shape}, example)


def _processing(more: Any, shape: Any = shapes.Processing) -> Answer:
    return _json(shape, {"status": "processing", **more}, "It is on disk; it will be done.", 202)


ADDED = _json(shapes.User, examples.PERSON, "The user; the mail follows.", 201)
TAKEN = {409: "Another user has the address or the name, or the Idempotency-Key is under way."}

OPERATIONS = {
    "GET /": Operation(
        "Say what this is, and list the routes",
        "service",
        Answer(
            200,
            "The service; to a browser, a page with links.",
            {JSON: shapes.Index, HTML: str},
            examples.INDEX,
            ("Vary",),
        ),
    ),
    "GET /health": Operation(
        "Tell how each part is",
        "service",
        _json(shapes.Health, examples.HEALTH, "All that is needed is there."),
        other=Answer(
            503,
            "The database cannot be reached.",
            {JSON: shapes.Health, PROBLEM: shapes.Problem},
            examples.DOWN,
        ),
    ),
    "GET /test": Operation(
        "Answer ok, then sleep",
        "answered at once",
        Answer(200, "ok", {TEXT: str}),
        "The task behind it sleeps for ten seconds.",
        tasks=1,
        security=USER,
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
        security=USER,
    ),
    "GET /users/": Operation(
        "List users",
        "users",
        _json(list[shapes.User], [examples.PERSON], "Users by rising id."),
        query=bodies.Page,
        security=USER,
    ),
    "POST /users/": Operation(
        "Add a user",
        "users",
        ADDED,
        "A welcome mail follows; to the log, as long as no mail service is set up.",
        body=bodies.NewUser | bodies.NewUserWithPassword,
        example=examples.ADA,
        tasks=1,
        problems=TAKEN,
    ),
    "POST /users/with-notifications/": Operation(
        "Add a user and announce them",
        "users",
        ADDED,
        "A welcome mail and a message on Discord follow, each by itself.",
        body=bodies.NewUser | bodies.NewUserWithPassword,
        example=examples.ADA,
        tasks=2,
        problems=TAKEN,
    ),
    "DELETE /users/{id}": Operation(
        "Erase a user",
        "users",
        Answer(204, "The user is erased, and every task that holds their address.", {}),
        "By the user, or by an operator.",
        security=("user", "operator"),
        problems={404: "There is no such user."},
    ),
    "POST /token": Operation(
        "Give a user a token",
        "users",
        _json(
            shapes.Token,
            {"access_token": "eyJ...", "token_type": "Bearer", "expires_in": 3600},
            "The token.",
        ),
        "The password grant of OAuth 2 (RFC 6749).",
        body=shapes.TokenForm,
        media_type=oauth.FORM,
        example={"grant_type": "password", "username": "ada", "password": "correct horse"},
        other=Answer(
            400,
            "There is none.",
            {JSON: shapes.NoToken, PROBLEM: shapes.Problem},
            examples.NO_TOKEN,
        ),
        problems={404: "This service gives no tokens: `JWT_SECRET` is not set."},
    ),
    "POST /process-image/": Operation(
        "Fetch and edit a picture afterwards",
        "pictures",
        _processing({"job_id": TASK_ID}, shapes.ImageJob),
        "The operations are applied in the order given, each once at most. Pictures come from"
        " public addresses only.",
        body=bodies.ImageOrder,
        example=examples.IMAGE,
        tasks=1,
        security=USER,
    ),
    "GET /images/{job_id}": Operation(
        "Show an edited picture",
        "pictures",
        Answer(200, "The picture.", dict.fromkeys(shapes.PICTURES, bytes)),
        problems={404: "It is not ready yet, or its task failed."},
    ),
    "POST /sync-task/": Operation(
        "Work, then answer",
        "answered at once",
        _json(shapes.Worked, {"status": "completed", "duration": 3.0}, "After the work."),
        "This one blocks on purpose: three seconds, to compare with `/async-task/`.",
        security=USER,
    ),
    "POST /async-task/": Operation(
        "Answer, then work",
        "answered at once",
        _processing({"task_id": TASK_ID}, shapes.Accepted),
        tasks=1,
        security=USER,
    ),
    "POST /action": Operation(
        "Enqueue a task that only logs", "answered at once", _processing({}), tasks=1, security=USER
    ),
    "POST /complex-action": Operation(
        "Enqueue three tasks that run side by side",
        "answered at once",
        _processing({"tasks": 3}, shapes.ThreeTasks),
        tasks=3,
        security=USER,
    ),
    "POST /process": Operation(
        "Process any object that has an id",
        "answered at once",
        _json(shapes.ItemAccepted, {"status": "accepted", "id": 7}, "It will be processed.", 202),
        body=bodies.Item,
        example={"id": 7, "anything": "else"},
        tasks=1,
        security=USER,
    ),
    "GET /tasks": Operation(
        "List tasks, newest first",
        "tasks",
        _json(
            shapes.Tasks,
            {
                "tasks": [{**examples.DEAD, "arguments": {}}],
                "next": f"/tasks?limit=1&after={TASK_ID}",
            },
            "The tasks, and the path of the next page.",
        ),
        "Long arguments are cut; `/tasks/{id}/arguments` has them whole.",
        query=api._Page,
        security=OPERATOR,
    ),
    "GET /tasks/changes": Operation(
        "List what operators changed, newest first",
        "tasks",
        _json(shapes.Changes, {"changes": [examples.CHANGE], "next": None}, "The changes."),
        query=api._ChangesPage,
        security=OPERATOR,
    ),
    "GET /tasks/{id}": Operation(
        "Tell how a task stands",
        "tasks",
        _json(shapes.Task, examples.TASK, "The task."),
        query=api._Wait,
        problems={404: NO_TASK},
    ),
    "DELETE /tasks/{id}": Operation(
        "Cancel a task",
        "tasks",
        _json(shapes.Task, examples.DEAD | {"state": "cancelled"}, "It is cancelled."),
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
            202,
            "It is queued, with all its attempts.",
            {JSON: shapes.Task},
            examples.QUEUED,
            ("Location",),
        ),
        security=OPERATOR,
        problems={404: NO_TASK, 409: "It is neither dead nor cancelled."},
    ),
}
