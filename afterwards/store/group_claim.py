"""Many claims in one statement: what is asked for while one is under way is claimed by the next."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from afterwards.store.given import WantedRow

ClaimGiven = Callable[[Sequence[WantedRow]], Awaitable[Iterable[Any]]]


class GroupClaim:
    """Claims tasks by their ids for many callers at once; `claim_given` asks the database."""

    def __init__(self, claim_given: ClaimGiven) -> None:
        self._claim_given = claim_given
        self._gathered: list[tuple[WantedRow, asyncio.Future[Any]]] = []
        self._claiming: asyncio.Task[None] | None = None

    def claim(self, worker: str, id: str) -> asyncio.Future[Any]:
        """Claim the task; what is returned is its row, or None where nobody may claim it.

        Raises `DatabaseUnavailable`, when awaited. Being cancelled leaves open whether it is
        claimed.
        """
        claimed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._gathered.append((WantedRow(id, worker), claimed))
        if self._claiming is None or self._claiming.done():
            self._claiming = asyncio.create_task(self._claim_all())
        return claimed

    async def _claim_all(self) -> None:
        while self._gathered:
            gathered, self._gathered = self._gathered, []
            claimed, error = dict[str, Any](), None
            # In one order: two workers that are told the same would wait for each other.
            wanted = sorted(row for row, _ in gathered)
            try:
                claimed = {row.id: row for row in await self._claim_given(wanted)}
            except Exception as failure:
                error = failure
            for (id, _), future in gathered:
                if not future.done():  # its caller may have been cancelled
                    # Whoever asks for the same a second time is refused.
                    future.set_exception(error) if error else future.set_result(
                        claimed.pop(id, None)
                    )
