"""How often a client, a mail's recipient, a task and a guess at a token may come: 429 beyond that.

Keys are hashes: no address is stored anywhere.
"""

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from limits import parse
from limits.aio.storage import RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards import problems
from afterwards.addresses import network_of
from afterwards.model import Task
from settings import Settings
from web.counting import InDatabase, InMemory
from web.quotas import Quota, Rate, TooMany, at_one_account, rate_of, task_rates

log = logging.getLogger("service")

UNLIMITED = ("/health", "/health/")  # a platform that is refused there restarts the service
ERASURES = "5/hour"  # anybody may become a user, and be erased: each time all tasks are read
AROUND_ONE = 10  # times what one client may guess, all clients together may guess at one account
MAILS = {"send_welcome_mail": "email"}  # the tasks that send mail, and who gets it

OPEN_SECONDS = 5.0
PATIENCE_SECONDS = 1.0  # with a storage elsewhere; a hit must not cost more than its request
CONNECTIONS = 3  # to it; small plans of Postgres allow twenty for all processes together
DOWN_SECONDS = 5.0  # in which a storage that has failed is not asked again


class Rates:
    """Counts hits against the rates of the settings, in memory or where all processes see them.

    With a storage that cannot be reached each process counts for itself, and no request fails.
    """

    def __init__(self, settings: Settings) -> None:
        self.client = rate_of("client", "requests from one client", settings.rate_limit)
        self.mails = rate_of("mails", "mails to one address", settings.mails_per_recipient)
        self.guesses = rate_of("guesses", "guesses at tokens", settings.token_guesses)
        self.guesses_at_one = self.guesses and at_one_account(self.guesses, AROUND_ONE)
        self.erasures = Rate("erasures", "users erased by one client", parse(ERASURES))
        self.tasks = task_rates(settings.task_rate_limits)
        self._limited = {*self.tasks, *(MAILS if self.mails else ())}
        self._memory = InMemory()
        self._here = FixedWindowRateLimiter(self._memory)
        self._shared = _shared(settings.rate_limit_storage, settings.database_url)
        self._there = FixedWindowRateLimiter(self._shared) if self._shared else None
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._down_until = -math.inf
        self._is_down = False

    def middleware(self) -> list[Middleware]:
        """List what limits each client: nothing where RATE_LIMIT is off."""
        return [Middleware(PerClient, rates=self, rate=self.client)] if self.client else []

    async def require(self, rate: Rate, key: str) -> None:
        """Count a hit; raise `TooMany` where it is one more than the rate allows."""
        quota = await self.hit(rate, key)
        if not quota.is_passed:
            raise TooMany(quota)

    @asynccontextmanager
    async def guess(self, request: Request, account: str) -> AsyncIterator[None]:
        """Count what the block does as a guess at this account's secret, unless it ends well.

        Raises `TooMany` before the block where this client, or all of them at this account, guessed
        too often; the block raises what answers a wrong guess.
        """
        keys = ((self.guesses, client_of(request.scope)), (self.guesses_at_one, account.casefold()))
        hits = [(rate, key) for rate, key in keys if rate]
        for rate, key in hits:
            await self.require(rate, key)
        is_guess = True
        try:
            yield
            is_guess = False
        except HTTPException as error:
            is_guess = error.status_code != HTTPStatus.SERVICE_UNAVAILABLE  # nothing was looked at
            raise
        finally:
            for rate, key in () if is_guess else hits:
                await self.hit(rate, key, cost=-1)

    async def admit(self, tasks: Sequence[Task]) -> None:
        """Count tasks that are about to be accepted; raise `TooMany` where none may be."""
        for task in tasks:
            if task.name in self._limited:
                await self._admit(task)

    async def hit(self, rate: Rate, key: str, cost: int = 1) -> Quota:
        """Count a hit, and tell what is left."""
        key = hashlib.blake2b(f"{rate.name} {key}".encode(), digest_size=16).hexdigest()
        quota = await self._hit_there(rate, key, cost) if self._there else None
        return quota or await _counted(self._here, rate, key, cost)

    async def open(self) -> None:
        """Connect to what counts elsewhere, so that the first request need not wait for it."""
        if self._shared is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(OPEN_SECONDS):
                if await self._shared.check():
                    return
        self._fall_back(ConnectionError("it does not answer"))

    async def close(self) -> None:
        """Close what counts elsewhere."""
        if isinstance(self._shared, InDatabase):
            await self._shared.close()
        elif isinstance(self._shared, RedisStorage):
            await self._shared.bridge.get_connection().aclose()  # type: ignore[attr-defined]

    async def _admit(self, task: Task) -> None:
        if rate := self.tasks.get(task.name):
            await self.require(rate, task.name)
        if self.mails and (parameter := MAILS.get(task.name)):
            recipient = task.kwargs[parameter] if parameter in task.kwargs else task.args[0]
            await self.require(self.mails, mailbox(str(recipient)))

    async def _hit_there(self, rate: Rate, key: str, cost: int) -> Quota | None:
        # What has once been refused is refused here until its window ends: a flood costs nothing.
        is_refused = cost > 0 and not await self._here.test(rate.item, key)
        if self._there is None or is_refused or time.monotonic() < self._down_until:
            return None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._turns:
                quota = await _counted(self._there, rate, key, cost)
        except Exception as error:  # whatever its driver raises
            self._fall_back(error)
            return None
        self._come_back()
        if not quota.is_passed:
            ends_at = time.monotonic() + quota.seconds
            self._memory.put(rate.item.key_for(key), rate.item.amount, ends_at)
        return quota

    def _fall_back(self, error: Exception) -> None:
        self._down_until = time.monotonic() + DOWN_SECONDS
        if not self._is_down:
            log.warning(
                "rate limits hold for each process alone, until their storage is back: %r", error
            )
        self._is_down = True

    def _come_back(self) -> None:
        if self._is_down:
            log.warning("the storage of the rate limits is back")
        self._is_down = False


class PerClient:
    """Answers 429 to a client that comes too often, and tells each what it has left."""

    def __init__(self, app: ASGIApp, rates: Rates, rate: Rate) -> None:
        self.app, self.rates, self.rate = app, rates, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLIMITED:
            await self.app(scope, receive, send)
            return
        quota = await self.rates.hit(self.rate, client_of(scope))
        fields = [
            (name.lower().encode(), value.encode()) for name, value in quota.headers().items()
        ]

        async def send_with_quota(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *fields]
            await send(message)

        app = self.app if quota.is_passed else _refusal(quota)
        await app(scope, receive, send_with_quota)


def client_of(scope: Scope) -> str:
    """Return what stands for one client: its IPv4 address, or the /64 of its IPv6 one."""
    client = scope.get("client")
    return network_of(client[0] if client else "")


def mailbox(address: str) -> str:
    """Return what stands for one mailbox: ada+1@... and Ada@... are ada@...'s."""
    local, _, domain = address.casefold().rpartition("@")
    return f"{local.partition('+')[0] or local}@{domain}"


def _shared(storage: str, database_url: str) -> Storage | None:
    if storage == "memory":
        return None
    if storage == "database":
        return InDatabase(database_url)
    return RedisStorage(storage, implementation="redispy", socket_connect_timeout=PATIENCE_SECONDS)


async def _counted(limiter: FixedWindowRateLimiter, rate: Rate, key: str, cost: int) -> Quota:
    is_passed = await limiter.hit(rate.item, key, cost=cost)
    ends_at, left = await limiter.get_window_stats(rate.item, key)
    return Quota(rate, is_passed, left, max(1, math.ceil(ends_at - time.time())))


def _refusal(quota: Quota) -> ASGIApp:
    refused = TooMany(quota)
    headers = {"Retry-After": str(quota.seconds)}  # the others are on every answer
    return problems.response(refused.status, refused.detail, headers=headers)
