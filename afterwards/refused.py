"""What was refused while nobody knew whether it is stored: it never runs, and is withdrawn."""

import logging
from collections.abc import Sequence

from afterwards.store.given import NewRow
from afterwards.store.tasks import Store

log = logging.getLogger("tasks")


class Refused:
    """The rows that may be committed although their clients were told that nothing was done."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Of one commit all rows are there, or none.
        self._commits: dict[object, list[NewRow]] = {}
        self.ids: set[str] = set()

    def add(self, commit: object, rows: Sequence[NewRow]) -> None:
        """Remember the rows, which this commit may have stored."""
        self._commits.setdefault(commit, []).extend(rows)
        self.ids.update(row.id for row in rows)

    async def withdraw(self, worker: str) -> None:
        """Delete what was stored; raise `DatabaseUnavailable`."""
        for commit, rows in list(self._commits.items()):
            begun = await self._store.withdraw(rows, worker)
            del self._commits[commit]
            self.ids.difference_update(row.id for row in rows)
            log.warning(
                "%d tasks were refused while the database was away, and are not stored",
                len(rows) - len(begun),
            )
            if begun:
                log.error("refused, and yet begun by another worker: %s", ", ".join(begun))
