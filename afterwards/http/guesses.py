"""Wrong tokens, counted by client, so that whoever guesses waits ever longer between guesses."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE = 5  # wrong tokens that cost nothing: people mistype
LONGEST_WAIT = 30.0  # seconds; somebody with the right token may share the guesser's address
FORGOTTEN_AFTER = 600.0  # seconds without a wrong one
MOST_CLIENTS = 1024


@dataclass
class _Client:
    wrong: int = 0
    last_at: float = 0.0
    free_at: float = 0.0


class Guesses:
    """What clients guessed lately, of so many at most; each process counts for itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._clients = OrderedDict[str, _Client]()
        self._shown = OrderedDict[tuple[str, str], None]()

    def wait(self, client: str) -> float:
        """Return the seconds for which the client's tokens are not looked at; 0 for most."""
        known = self._clients.get(client)
        return max(0.0, known.free_at - self._clock()) if known else 0.0

    def was_wrong(self, client: str) -> None:
        """Count a wrong token; what comes during a wait is none, so nobody prolongs another's."""
        now = self._clock()
        known = self._clients.pop(client, _Client())
        if now - known.last_at > FORGOTTEN_AFTER:
            known = _Client()
        known.wrong, known.last_at = known.wrong + 1, now
        if known.wrong >= FREE:
            known.free_at = now + min(LONGEST_WAIT, 2.0 ** (known.wrong - FREE))
        self._clients[client] = known
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)

    def was_right(self, client: str, fingerprint: str) -> None:
        """Remember that a client has this token; what it guessed before still counts."""
        self._shown.pop((client, fingerprint), None)
        self._shown[client, fingerprint] = None
        if len(self._shown) > MOST_CLIENTS:
            self._shown.popitem(last=False)

    def has_shown(self, client: str, fingerprint: str) -> bool:
        """Tell whether the client had this token before: it need not wait for one that guesses."""
        return (client, fingerprint) in self._shown
