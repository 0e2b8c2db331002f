"""What a token must be, and what is none."""

import base64
import json
import time

import jwt
import pytest
from starlette.routing import BaseRoute

import asgi_app
from web.tokens import Tokens

SECRET, PREVIOUS, OTHER = "s" * 32, "p" * 32, "o" * 32
TOKENS = Tokens(SECRET, PREVIOUS, 60)
NOW = int(time.time())
GOOD = {"sub": "ada", "iat": NOW, "exp": NOW + 3600}


def part(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


NONE = part({"alg": "none", "typ": "JWT"})


def test_a_given_token_is_good() -> None:
    given = TOKENS.give("ada")
    assert TOKENS.subject(given) == "ada"
    assert jwt.get_unverified_header(given) == {"alg": "HS256", "typ": "JWT"}
    claims = jwt.decode(given, SECRET, algorithms=["HS256"])
    assert claims.keys() == {"sub", "iat", "exp"}
    assert claims["exp"] - claims["iat"] == 60


@pytest.mark.parametrize(("secret", "subject"), [(SECRET, "ada"), (PREVIOUS, "ada"), (OTHER, None)])
def test_two_secrets_verify(secret: str, subject: str | None) -> None:
    assert TOKENS.subject(jwt.encode(GOOD, secret)) == subject
    assert Tokens(SECRET, None, 60).subject(jwt.encode(GOOD, PREVIOUS)) is None


@pytest.mark.parametrize("left_out", ["sub", "exp", "iat"])
def test_each_claim_is_required(left_out: str) -> None:
    claims = {name: value for name, value in GOOD.items() if name != left_out}
    assert TOKENS.subject(jwt.encode(claims, SECRET)) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW - 1},
        {"exp": "soon"},
        {"iat": NOW + 3600},
        {"nbf": NOW + 3600},
        {"aud": "another service"},
    ],
    ids=str,
)
def test_a_wrong_claim_is_refused(changed: dict[str, object]) -> None:
    assert TOKENS.subject(jwt.encode(GOOD | changed, SECRET)) is None


@pytest.mark.parametrize("algorithm", ["none", "HS384", "HS512"])
@pytest.mark.filterwarnings("ignore:.*HMAC key.*")
def test_another_algorithm_is_refused(algorithm: str) -> None:
    key = "" if algorithm == "none" else SECRET
    assert TOKENS.subject(jwt.encode(GOOD, key, algorithm)) is None


def test_a_tampered_token_is_refused() -> None:
    ada, bob = TOKENS.give("ada").split("."), TOKENS.give("bob").split(".")
    for parts in (
        [ada[0], bob[1], ada[2]],
        [ada[0], ada[1], bob[2]],
        [ada[0], ada[1], ""],
        [NONE, ada[1], ""],
        [NONE, ada[1], ada[2]],
        [part({"alg": "HS512"}), ada[1], ada[2]],
    ):
        assert TOKENS.subject(".".join(parts)) is None
    assert TOKENS.subject(".".join(ada)) == "ada"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        "a.b.c",
        "..",
        "\xff.\xff.\xff",
        part("[" * 60_000) + ".e30.e30",
        part("[" * 360) + ".e30.e30",
        part('{"a":' * 70 + "1" + "}" * 70) + ".e30.e30",
        part({"alg": "HS256", "kid": 7}) + ".e30.e30",
        part({"alg": "HS256", "b64": False, "crit": ["b64"]}) + ".e30.e30",
        part({"alg": ["HS256"]}) + ".e30.e30",
        part([]) + ".e30.e30",
    ],
    ids=lambda given: given[:20],
)
def test_what_is_no_token_is_refused(given: str) -> None:
    assert TOKENS.subject(given) is None
    TOKENS.is_one(given)  # which raises nothing


def test_operators_tokens_are_no_users() -> None:
    for given in ("an operator's token", "with.two.dots-and-more", "e30.e30.e30x", "x" * 300):
        assert not TOKENS.is_one(given)
    for given in (TOKENS.give("ada"), jwt.encode(GOOD, OTHER), f"{NONE}.e30."):
        assert TOKENS.is_one(given)


def test_public_routes_are_few() -> None:
    def public(route: BaseRoute) -> list[str]:
        return [f"{each} {getattr(route, 'path', '')}" for each in getattr(route, "public", ())]

    assert {each for route in asgi_app.ROUTES for each in public(route)} == {
        "GET /",
        "GET /health",
        "GET /openapi.json",
        "GET /docs",
        "GET /redoc",
        "GET /static/{name}",
        "POST /token",
        "POST /users/",
        "POST /users/with-notifications/",
        "GET /images/{job_id}",
    }
