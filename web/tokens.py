"""Users' tokens: JSON Web Tokens, signed with HS256 by a secret of this service."""

import time

import jwt

ALGORITHM = "HS256"
REQUIRED = ["exp", "iat", "sub"]


class Tokens:
    """Gives tokens that are good for so many `seconds`, and tells whose a token is.

    Those that the `previous` secret has signed are good, too.
    """

    def __init__(self, secret: str, previous: str | None, seconds: float) -> None:
        self.seconds = int(seconds)
        self._secrets = [secret, *([previous] if previous else [])]

    def give(self, subject: str) -> str:
        """Sign a token for whom the service calls `subject`."""
        now = int(time.time())
        claims = {"sub": subject, "iat": now, "exp": now + self.seconds}
        return jwt.encode(claims, self._secrets[0], ALGORITHM)

    def subject(self, token: str) -> str | None:
        """Return whom this token was given to; None if it is not, or no longer, good."""
        for secret in self._secrets:
            try:
                # The algorithm is ours to choose, never the token's.
                claims = jwt.decode(
                    token, secret, algorithms=[ALGORITHM], options={"require": REQUIRED}
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.InvalidTokenError:
                return None
            return str(claims["sub"])
        return None

    def is_one(self, token: str) -> bool:
        """Tell whether this is anybody's JSON Web Token, good or not, and no operator's."""
        try:
            return bool(jwt.get_unverified_header(token))
        except jwt.InvalidTokenError:
            return False
