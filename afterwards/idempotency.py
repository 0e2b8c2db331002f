"""`Idempotency-Key`: the same key gives the same tasks and the same answer, also while the first is under way.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ The key's row is
inserted in the transaction that stores the tasks, so that of two requests with one key the second
fails there, whichever process it came to, and finds the first one's answer. The answer is kept in
that transaction too, except where it is the handler's own: there it is not known yet. A process
that dies before it is leaves a key without an answer; a minute later that is a 202 with the tasks'
ids, for they are stored.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from afterwards.errors import KeyIsUnderWay, KeyReused
from afterwards.store.database import Connection, Database
from afterwards.store.tables import answers, clock

HEADER = b"idempotency-key"
CREDENTIALS = (b"authorization", b"cookie")
MAX_KEY = 255  # characters
LOST_SECONDS = 60  # an answer that is not known so long after its tasks were stored never will be


@dataclass(frozen=True, slots=True)
class Key:
    """A client's key, and what tells the request that it came with from any other."""

    text: str
    fingerprint: str


class SeenBefore(KeyIsUnderWay):
    """Another request with this key was first."""


def is_asked_for(scope: Scope) -> bool:
    """Tell whether the request is one that may enqueue, and bears a key."""
    return scope["method"] == "POST" and any(name == HEADER for name, _ in scope["headers"])


def key_of(scope: Scope, body: bytes) -> Key:
    """Read the key that the request bears; raise `KeyReused` for one that is none.

    Two clients' keys are two, even where they are the same text: no answer is for other eyes.
    """
    text = next(value for name, value in scope["headers"] if name == HEADER).decode("latin-1")
    if not 0 < len(text) <= MAX_KEY or not text.isascii() or not text.isprintable():
        raise KeyReused(f"an Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters")
    # Not the whole URL, which is made of the Host header: another one is no other request.
    told = f"{scope['method']} {scope['path'].rstrip('/')}\n".encode() + body
    if credentials := [each for each in scope["headers"] if each[0] in CREDENTIALS]:
        text = hashlib.sha256(repr((text, credentials)).encode()).hexdigest()
    return Key(text, hashlib.sha256(told).hexdigest())


async def earlier_answer(database: Database, key: Key) -> Response | None:
    """Find the answer to an earlier request with this key.

    Raises `KeyReused` where that was another request, `KeyIsUnderWay` where its answer is not known
    yet.
    """
    is_late = (answers.c.created_at < clock() - LOST_SECONDS * 1_000_000).label("is_late")
    async with database.reading() as connection:
        row = (
            await connection.execute(select(answers, is_late).where(answers.c.key == key.text))
        ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != key.fingerprint:
        raise KeyReused("this Idempotency-Key came with another request before; use a new one")
    if row.status is None and row.is_late:
        return _instead_of_lost(*json.loads(row.headers))
    if row.status is None:
        raise KeyIsUnderWay(
            "the first request with this Idempotency-Key is under way; send it again in a moment"
        )
    response = Response(row.body, row.status)
    response.raw_headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(row.headers)
    ]
    return response


async def reserve(
    connection: Connection, key: Key, ids: Sequence[str], *, is_known: bool = False
) -> None:
    """Insert the key in the transaction that stores these tasks, unless it `is_known` there.

    Raises `SeenBefore` where another request has it.
    """
    if is_known:
        change = update(answers).where(answers.c.key == key.text)
        await connection.execute(change.values(headers=json.dumps(ids)))
        return
    values = {"key": key.text, "fingerprint": key.fingerprint, "created_at": clock()}
    try:
        await connection.execute(answers.insert().values({**values, "headers": json.dumps(ids)}))
    except IntegrityError:
        raise SeenBefore("the first request with it failed; send it again") from None


async def remember(connection: Connection, key: Key, response: Response) -> None:
    """Keep the answer beside its key, if it is one that can be kept: a stream cannot."""
    if not hasattr(response, "body"):
        return
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers
    ]
    values = {
        "status": response.status_code,
        "headers": json.dumps(headers),
        "body": bytes(response.body),
    }
    await connection.execute(update(answers).where(answers.c.key == key.text).values(values))


def _instead_of_lost(*ids: str) -> Response:
    headers = {"Task-Id": ", ".join(ids)} | (
        {"Location": f"/tasks/{ids[0]}"} if len(ids) == 1 else {}
    )
    return JSONResponse({"status": "accepted"}, HTTPStatus.ACCEPTED, headers)
