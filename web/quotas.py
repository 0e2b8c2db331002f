"""A rate as the settings say it, what a hit has left of it, and how that is told.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (11) names the header fields.
A window begins with its first hit.
"""

from dataclasses import dataclass
from http import HTTPStatus

from limits import RateLimitItem, parse

from afterwards import registry
from afterwards.errors import Refused
from settings import OFF, WrongSetting


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in a window; `name` stands in the header fields, `what` in the refusal."""

    name: str
    what: str
    item: RateLimitItem

    @property
    def seconds(self) -> int:
        return self.item.get_expiry()


@dataclass(frozen=True, slots=True)
class Quota:
    """What a hit has left of a rate, and for how many seconds that is all there is."""

    rate: Rate
    is_passed: bool
    left: int
    seconds: int

    def headers(self) -> dict[str, str]:
        """Return the header fields that tell of it."""
        name, most = self.rate.name, self.rate.item.amount
        return {
            "RateLimit-Policy": f'"{name}";q={most};w={self.rate.seconds}',
            "RateLimit": f'"{name}";r={self.left};t={self.seconds}',
        }


class TooMany(Refused):
    """More came than a rate allows; nothing was done."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, quota: Quota) -> None:
        self.retry_after = quota.seconds
        most = f"{quota.rate.item.amount} {quota.rate.what} in {quota.rate.seconds} s"
        self.advice = f"No more than {most}; nothing was done. Retry-After says when to come back."
        super().__init__(f"more than {most}")
        self.headers = {"Retry-After": str(quota.seconds), **quota.headers()}


def rate_of(name: str, what: str, said: str) -> Rate | None:
    """Read a rate as a setting says it; None where it is off."""
    return None if said == OFF else Rate(name, what, parse(said))


def at_one_account(rate: Rate, times: int) -> Rate:
    """Make the rate of all clients together at one account: so many times that of one client."""
    item = type(rate.item)(rate.item.amount * times, rate.item.multiples)
    return Rate("account", f"{rate.what} of one account", item)


def task_rates(said: str | None) -> dict[str, Rate]:
    """Read `name=rate, name=rate`; raise `WrongSetting` for a name that no task has."""
    rates = {}
    for name, _, rate in (each.strip().partition("=") for each in (said or "").split(",") if each):
        if name not in registry.names():
            raise WrongSetting(f"TASK_RATE_LIMITS: got {name!r}, takes names of tasks")
        rates[name] = Rate(f"tasks-{name}", f"tasks named {name}", parse(rate))
    return rates
