"""Which names this service answers to: a foreign one is a DNS rebinding, or a wrong setting."""

from collections.abc import Collection
from functools import lru_cache

from starlette.types import Scope

# Load balancers and probes ask by an address of their own making; it tells nobody's secret.
FOR_ANY_HOST = ("/health", "/health/")

MAX_NAME = 255 + len(":65535")  # as DNS has it; looking for parents takes a length's square


class Hosts:
    """The allowed names: `example.com`, `*.example.com` for all below it."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = {name.lower() for name in names}
        self._allows = lru_cache(256)(self._allows_name)

    def allow(self, scope: Scope) -> bool:
        """Tell whether the request names one of them; one that names none, or two, does not."""
        found: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"host":
                if found is not None:
                    return False
                found = value
        if found is not None and len(found) <= MAX_NAME and self._allows(found):
            return True
        return scope["path"] in FOR_ANY_HOST

    def _allows_name(self, given: bytes) -> bool:
        host = given.decode("latin-1").lower()
        name, _, port = host.rpartition(":")
        name = (name if name and port.isdecimal() else host).removesuffix(".")
        parents = (f"*{name[at:]}" for at, character in enumerate(name) if character == ".")
        return name in self._names or any(parent in self._names for parent in parents)
