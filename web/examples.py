"""Examples of bodies and answers, for the descriptions of routes."""

from typing import Any

from web.parts import TASK_ID

WORKER = {"status": "ok", "queued": 0, "oldest_waiting": 0.0, "running": 1, "rate": 1.3}
HEALTH = {"status": "ok", "database": "ok", "worker": WORKER, "tracing": "off"}
DOWN = HEALTH | {"status": "down", "database": "down"}
INDEX = {
    "name": "starlette-background-tasks",
    "version": "0.2.0",
    "status": "ok",
    "routes": ["GET /test"],
}
ADA = {"email": "ada@example.com", "username": "ada"}
MOMENT = "2026-11-20T23:34:12.123456Z"
PERSON = {"id": 1, **ADA, "created_at": MOMENT}
IMAGE = {
    "image_url": "https://www.python.org/static/img/python-logo.png",
    "operations": ["resize", "watermark", "compress"],
}
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
CHANGE = {
    "id": TASK_ID.replace("task", "change"),
    "at": MOMENT,
    "who": "operator 1f2e3d4c",
    "address": "192.0.2.1",
    "what": "retry",
    "which": [TASK_ID],
}
NO_TOKEN = {
    "error": "invalid_grant",
    "error_description": "There is no user of this name and password.",
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "There is no user of this name and password.",
}
LIST = {"tasks": [{**DEAD, "arguments": {}}], "next": f"/tasks?limit=1&after={TASK_ID}"}
