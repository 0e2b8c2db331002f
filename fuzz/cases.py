"""What is sent: the case of a seed and a number is always the same, byte for byte."""

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

from fuzz.hostile import (
    FIELDS,
    HEADERS,
    ID,
    METHODS,
    NONSENSE,
    NUMBERS,
    OPERATIONS,
    PATHS,
    QUERIES,
    TEXTS,
    TOKEN,
    TYPES,
)

Way = Literal["whole", "in parts", "half", "half closed", "reset", "deaf"]

WAYS: dict[Way, int] = {
    "whole": 12,
    "in parts": 3,
    "half": 1,
    "half closed": 1,
    "reset": 1,
    "deaf": 1,
}


FORM, FORMS = "application/x-www-form-urlencoded", ("/token", "/tasks/login", "/tasks/logout")


class Case(NamedTuple):
    """The bytes, and how they are sent."""

    number: int
    way: Way
    sent: bytes


def make(seed: str, number: int, routes: Sequence[str]) -> Case:
    """Make the case of this number."""
    random = Random(f"{seed} {number}")
    sent = _request(random, routes)
    if random.random() < 0.08:
        sent = b"".join([sent, *(_request(random, routes) for _ in range(random.randint(1, 5)))])
    if random.random() < 0.06:
        sent = _bent(random, sent)
    return Case(number, random.choices(list(WAYS), list(WAYS.values()))[0], sent)


def _request(random: Random, routes: Sequence[str]) -> bytes:
    method, path = random.choice(routes).split(" ", 1)
    method = random.choice(METHODS) if random.random() < 0.08 else method
    path = re.sub(r"{\w+}", lambda _: _name(random), path)
    path = random.choice(PATHS) if random.random() < 0.08 else path
    path += random.choice(QUERIES) if random.random() < 0.3 else ""
    body = _body(random) if method in ("POST", "PUT", "PATCH") or random.random() < 0.1 else b""
    kind = TYPES[0]
    if body and path.startswith(FORMS) and random.random() < 0.8:
        kind, body = FORM, _form(random)
    headers = [
        ("Host", "a"),
        ("Content-Type", random.choice(TYPES) if random.random() < 0.15 else kind),
    ]
    if random.random() < 0.9:
        headers.append(("Authorization", f"Bearer {TOKEN}"))
    framing, body = _framed(random, body)
    headers += framing
    for _ in range(random.choice([0, 0, 0, 0, 0, 0, 1, 1, 2, 5])):
        name = random.choice(list(HEADERS))
        headers += [(name, random.choice(HEADERS[name]))] * random.choice([1, 1, 1, 2, 3])
    if random.random() < 0.02:
        headers += [(f"x-{random.random()}", "y")] * random.choice([50, 150, 5000])
    random.shuffle(headers)
    version = random.choice(["1.0", "2.0", "9.9", "", "1.1 "]) if random.random() < 0.03 else "1.1"
    lines = [
        f"{method} {path} HTTP/{version}",
        *(f"{name}: {value}" for name, value in headers),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("utf-8", "replace") + body


def _name(random: Random) -> str:
    others = ["x", "%00", "a%2fb", "x" * 9000, "%F0%9F%92%A9", "..", ID + "x"]
    return ID if random.random() < 0.5 else random.choice(others)


def _framed(random: Random, body: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers that tell the body's length, or lie about it, and the body as sent."""
    kind = random.random()
    if kind < 0.8:
        return ([("Content-Length", f"{len(body)}")] if body or kind < 0.4 else []), body
    if kind < 0.85:
        lie = len(body) + random.choice([-1, 1, 1000, 10**7, 10**19])
        return [("Content-Length", f"{lie}")], body
    chunks = [body[start : start + 5000] for start in range(0, len(body), 5000)] or [b""]
    sizes = [
        b"%x",
        b"%X",
        b"000000%x",
        b"%x;a=b",
        b"-%x",
        b"0x%x",
        b"%xg",
        b"fffffffffffffffff%x",
        b"%x " + b";a" * 9000,
    ]
    size = sizes[0] if random.random() < 0.6 else random.choice(sizes)
    sent = b"".join(size % len(chunk) + b"\r\n" + chunk + b"\r\n" for chunk in chunks)
    ends = [
        b"0\r\n\r\n",
        b"0\r\na: b\r\n\r\n",
        b"",
        b"0\r\n",
        b"0\r\n" + b"a: b\r\n" * 9000 + b"\r\n",
        b"\r\n",
    ]
    end = ends[0] if random.random() < 0.6 else random.choice(ends)
    both = [("Content-Length", "3")] if random.random() < 0.1 else []
    return [("Transfer-Encoding", "chunked"), *both], sent + end


def _body(random: Random) -> bytes:
    return random.choice(BODIES)(random)


def _fields(random: Random) -> bytes:
    """Make an object that a route may take, with something wrong in it or not."""
    good: dict[str, Any] = {
        "id": 1,
        "email": f"{random.random()}@b.co",
        "username": f"{random.random()}",
        "password": "correct horse",
    }
    good |= {"image_url": "http://127.0.0.1:9/a.png", "operations": ["resize"]}
    users = ["email", "username", "password"]
    names = random.choice([["id"], users, ["image_url", "operations"]])
    chosen = {name: good[name] for name in names}
    for _ in range(random.choice([0, 0, 1, 1, 2])):
        chosen[random.choice([*names, *FIELDS])] = _value(random)
    return json.dumps(chosen, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")


def _form(random: Random) -> bytes:
    """Make a form that asks for a token, or to be logged in, with something wrong in it or not."""
    good = {"grant_type": "password", "username": "a", "password": "b", "token": TOKEN, "next": "/"}
    pairs = list(good.items())
    for _ in range(random.choice([0, 0, 1, 2, 30])):
        pairs.append((random.choice([*good, "csrf", "scope", "\ud800"]), random.choice(TEXTS)))
    return urlencode(pairs, errors="surrogatepass").encode()[: 2**20]


def _value(random: Random) -> Any:
    values: list[Any] = [
        random.choice(TEXTS),
        random.choice(OPERATIONS),
        None,
        True,
        [],
        {},
        -1,
        2**70,
        1e308,
        [[]] * 999,
        {"a": {}},
    ]
    return random.choice(TEXTS) if random.random() < 0.6 else random.choice(values)


def _nested(random: Random) -> bytes:
    begin, end = random.choice([(b"[", b"]"), (b'{"id":', b"}"), (b'{"id":[', b"]}")])
    depth = random.choice([50, 300, 5000, 100_000])
    return begin * depth + b"1" + end * random.choice([depth, 0, depth - 1])


def _number(random: Random) -> bytes:
    return b'{"id": %s}' % random.choice(NUMBERS).encode()


def _many(random: Random) -> bytes:
    count = random.choice([100, 5000, 60_000])
    names = random.choice(["x%d", "\u0301%d", "x", "a/b%d~"])
    fields = (f'"{names % n if "%" in names else names}": 1' for n in range(count))
    return ("{" + ",".join(fields) + "}").encode()


def _nonsense(random: Random) -> bytes:
    return random.choice([*NONSENSE, random.randbytes(500)])


def _large(random: Random) -> bytes:
    text = random.choice(["x", "\u0301", "\ufdfa", "@", "://", "a@", "\\u0301"])
    field = random.choice(["id", "email", "username", "image_url", "other"])
    size = random.choice([20_000, 300_000, 2**20 - 100, 2**20 + 100])
    return f'{{"{field}": "{(text * size)[:size]}"}}'.encode()[: 2**20 + 100]


BODIES: list[Callable[[Random], bytes]] = [
    _fields,
    _fields,
    _fields,
    _fields,
    _nested,
    _number,
    _many,
    _nonsense,
    _large,
]


def _bent(random: Random, sent: bytes) -> bytes:
    """Change some bytes."""
    bent = bytearray(sent)
    for _ in range(random.choice([1, 3, 20])):
        at = random.randrange(len(bent) + 1)
        new = random.choice([b"", b"\0", b"\r", b"\n", b"\xff", random.randbytes(3)])
        bent[at : at + random.choice([0, 1, 1, 4])] = new
    return bytes(bent)
