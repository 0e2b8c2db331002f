"""`Idempotency-Key`: the same key gives the same tasks and the same answer, even at once.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ The key's row is
inserted in the transaction that stores the tasks, so that of two requests with one key the second
fails there, whichever process it came to, and finds the first one's answer. The answer is kept in
that transaction too, except where it is the handler's own: there it is not known yet. A process
that dies before it is leaves a key without an answer; a minute later that is a 202 with the tasks'
ids, for they are stored.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from afterwards.errors import KeyIsUnderWay, KeyReused
from afterwards.store import answers
from afterwards.store.database import Database

HEADER = b"idempotency-key"
CREDENTIALS = (b"authorization", b"cookie", b"x-api-key")
# Where a scope may say who its client is, whatever token or address that has at the moment.
CLIENT = "afterwards.client"
MAX_KEY = 255  # characters
# As a UUID has: nobody else comes by such a key, and its client may come from another address the
# next time, as a telephone does.
UNGUESSABLE_KEY = 32  # characters
Headers = list[tuple[bytes, bytes]]
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

    Two clients' keys are two, even where they are the same text: no answer is for other eyes. Who
    a client is its credentials say, or else a key that nobody can guess, or else its address.
    """
    text = next(value for name, value in scope["headers"] if name == HEADER).decode("latin-1")
    if not 0 < len(text) <= MAX_KEY or not text.isascii() or not text.isprintable():
        raise KeyReused(f"an Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters")
    # Not the whole URL, which is made of the Host header: another one is no other request.
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    told = f"{scope['method']} {scope['path'].rstrip('/')}".encode() + query + b"\n" + body
    # All of them hashed: no client can send what another's key is kept under.
    kept = hashlib.sha256(repr((text, _client(scope, text))).encode()).hexdigest()
    # The key is no part of what is kept: a body may hold a password, to be found by trying many.
    return Key(kept, hashlib.sha256(text.encode() + b"\n" + told).hexdigest())


def _client(scope: Scope, key: str) -> object:
    if CLIENT in scope:
        return scope[CLIENT]
    credentials = [each for each in scope["headers"] if each[0] in CREDENTIALS]
    if credentials or len(key) >= UNGUESSABLE_KEY:
        return credentials
    return (scope.get("client") or [""])[0]  # a Unix socket's has none


async def earlier_answer(
    database: Database, key: Key, headers_of: Callable[[Sequence[str]], Headers]
) -> Response | None:
    """Find the answer to an earlier request with this key.

    One that was lost with its process is made anew, with the `headers_of` its tasks. Raises
    `KeyReused` where that was another request, `KeyIsUnderWay` where its answer is not known yet.
    """
    row = await answers.find(database, key.text, lost_seconds=LOST_SECONDS)
    if row is None:
        return None
    if row.fingerprint != key.fingerprint:
        raise KeyReused("this Idempotency-Key came with another request before; use a new one")
    if row.status is None and row.is_late:
        lost = JSONResponse({"status": "accepted"}, HTTPStatus.ACCEPTED)
        lost.raw_headers += headers_of(json.loads(row.headers))
        return lost
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
    database: Database,
    within: answers.Within,
    key: Key,
    ids: Sequence[str],
    *,
    is_known: bool = False,
) -> None:
    """Insert the key in the transaction that stores these tasks, unless it `is_known` there.

    Raises `SeenBefore` where another request has it.
    """
    headers = json.dumps(ids)
    if is_known:
        await answers.keep_ids(database, within, key.text, headers)
        return
    values = {"key": key.text, "fingerprint": key.fingerprint, "headers": headers}
    if not await answers.reserve(database, within, values):
        raise SeenBefore("the first request with it failed; send it again")


async def remember(
    database: Database, within: answers.Within, key: Key, response: Response
) -> None:
    """Keep the answer beside its key, if it is one that can be kept: a stream cannot."""
    if not hasattr(response, "body"):
        return
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers
    ]
    values = {"key": key.text, "status": response.status_code, "headers": json.dumps(headers)}
    await answers.keep(database, within, values | {"body": bytes(response.body)})
