"""A connection to Postgres that does not wait long for the end: a silent server is left after half a second."""

import asyncpg

CLOSING_SECONDS = 0.5  # SQLAlchemy would give it two, while a client waits for its 503


class HastyConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Closes in good order if the server answers at once, and as it is if not."""

    async def close(self, *, timeout: float | None = None) -> None:
        """Close; raise TimeoutError where the server is silent, with the connection closed all the same."""
        await super().close(timeout=min(timeout or CLOSING_SECONDS, CLOSING_SECONDS))
