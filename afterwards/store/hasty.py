"""A connection to Postgres that leaves a silent server after half a second."""

from typing import Any

import asyncpg

CLOSING_SECONDS = 0.5  # SQLAlchemy would give it two, while a client waits for its 503


class HastyConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Closes in good order if the server answers at once, and as it is if not."""

    async def close(self, *, timeout: float | None = None) -> None:
        """Close; raise TimeoutError where the server is silent, and be closed all the same."""
        await super().close(timeout=min(timeout or CLOSING_SECONDS, CLOSING_SECONDS))

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        """Ask for a row, as SQLAlchemy's ping does; its ROLLBACK would wait once more."""
        try:
            return await super().fetchrow(*args, **options)
        except TimeoutError:
            self.terminate()
            raise
