"""Many claims in one statement: what is asked for while one is under way is claimed by the next."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from itertools import groupby
from typing import Any

Wanted = tuple[str, str, asyncio.Future[Any]]  # by which worker, the id, and who is told

ClaimGiven = Callable[[str, Collection[str]], Awaitable[Iterable[Any]]]


class GroupClaim:
    """Claims tasks by their ids for many callers at once; `claim_given` asks the database."""

    def __init__(self, claim_given: ClaimGiven) -> None:
        self._claim_given = claim_given
        self._gathered: list[Wanted] = []
        self._claiming: asyncio.Task[None] | None = None

    def claim(self, worker: str, id: str) -> asyncio.Future[Any]:
        """Claim the task; what is returned is its row, or None where nobody may claim it.

        Raises `DatabaseUnavailable`, when awaited. Being cancelled leaves open whether it is
        claimed.
        """
        claimed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._gathered.append((worker, id, claimed))
        if self._claiming is None or self._claiming.done():
            self._claiming = asyncio.create_task(self._claim_all())
        return claimed

    async def _claim_all(self) -> None:
        while self._gathered:
            gathered, self._gathered = self._gathered, []
            for worker, wanted in groupby(gathered, key=lambda each: each[0]):
                await self._claim(worker, list(wanted))

    async def _claim(self, worker: str, wanted: list[Wanted]) -> None:
        claimed, error = dict[str, Any](), None
        try:
            rows = await self._claim_given(worker, {id for _, id, _ in wanted})
            claimed = {row.id: row for row in rows}
        except Exception as failure:
            error = failure
        for _, id, future in wanted:
            if not future.done():  # its caller may have been cancelled
                # Whoever asks for the same a second time is refused.
                future.set_exception(error) if error else future.set_result(claimed.pop(id, None))
