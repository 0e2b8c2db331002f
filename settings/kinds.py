"""What a variable takes, in the words of the line that refuses it.

The same words stand in the table of docs/settings.md.
"""

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field


def parted(text: str | None) -> list[str]:
    """Return what stands between the commas of a setting."""
    return [each.strip(" ") for each in text.split(",")] if text else []


def _each_trusts_some(text: str) -> str:
    for each in (each.strip() for each in text.split(",")):
        # Where everybody is trusted, every client chooses its own address.
        if each not in PROXIES and not ip_network(each).prefixlen:
            raise ValueError("trusts everybody")
    return text


SECONDS = "seconds, above 0, at most 86400"
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False, description=SECONDS)]
SecondsOrNone = Annotated[float, Field(ge=0, le=86_400, description="seconds, 0 to 86400")]
Days = Annotated[float, Field(ge=0, le=36_500, description="days, 0 to 36500")]
Count = Annotated[int, Field(ge=1, le=100_000, description="a whole number from 1 to 100000")]
Url = Annotated[str, Field(pattern="^https?://[^/]", description="an http(s) URL")]
Switch = Annotated[bool, Field(description="1 or 0")]

BROKER = "amqp(s)://user:password@host:port/vhost, redis(s)://:password@host:port/0 or sqs://"
Broker = Annotated[
    Annotated[str, Field(pattern=r"^((amqps?|rediss?)://[^/]|sqs://)")] | None,
    Field(description=BROKER),
]

# HS256 takes 32 bytes (RFC 7518).
KEY = "a secret of at least 32 characters, all of them printable ASCII"
Key = Annotated[Annotated[str, Field(pattern="^[ -~]{32,}$")] | None, Field(description=KEY)]

# A header can carry no other characters: what a client makes of the rest is its own affair. No
# comma, which parts them.
TOKEN = r"[!-+\--~][ -+\--~]{14,}[!-+\--~]"
TOKENS = "a secret of at least 16 characters, printable ASCII, or several with commas between"
Tokens = Annotated[
    Annotated[str, Field(pattern=f"^ *{TOKEN} *(, *{TOKEN} *)*$")] | None,
    Field(description=TOKENS),
]

OFF = "off"
PERIOD = r"[1-9][0-9]{0,8}/([1-9][0-9]{0,4} ?)?(second|minute|hour|day)s?"
RATE = "100/minute, 5/10 seconds or the like (second, minute, hour, day), or off"
Rate = Annotated[str, Field(pattern=f"^({OFF}|{PERIOD})$", description=RATE)]
NAMED = rf"[A-Za-z0-9_.-]+={PERIOD}"  # names that a header field can bear
TaskRates = Annotated[
    Annotated[str, Field(pattern=f"^{NAMED}( *, *{NAMED})*$")] | None,
    Field(description="task=30/minute, task=5/10 seconds, ..."),
]

# What TRUSTED_PROXIES takes besides networks; web.proxies knows what they stand for.
PROXIES = ("private", "cloudflare", "unix", "none")
Proxies = Annotated[
    Annotated[str, AfterValidator(_each_trusts_some)] | None,
    Field(description="networks, such as 10.0.0.0/8, private, cloudflare, unix, or none"),
]

HOST = r"(\*|(\*\.)?\w[\w.-]*|\[[0-9A-Fa-f:.]+\])"
ORIGIN = r"(\*|https?://[\w.-]+(:[0-9]+)?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]+)?)"
LIST = r"^ *{0}( *, *{0})* *$"
Hosts = Annotated[
    Annotated[str, Field(pattern=LIST.format(HOST))] | None,
    Field(description="names without ports, comma-separated; *.example.com for all below it"),
]
Origins = Annotated[
    Annotated[str, Field(pattern=LIST.format(ORIGIN))] | None,
    Field(description="origins as https://app.example.com, comma-separated, or *"),
]
