"""Where a request comes from: this machine or another, our own pages or another origin's."""

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from afterwards.addresses import parsed

# A Host without a name that anybody could have in the DNS, and let point here.
LOOPBACK = re.compile(r"(localhost|[\d.]+|\[[\da-f:.]+\])(:\d*)?", re.IGNORECASE)
FORWARDED = {"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip"}


def address_of(request: Request) -> str:
    """Return the client's address, as those in front of us have made it true."""
    return request.client.host if request.client is not None else "unknown"


def is_local(request: Request) -> bool:
    """Tell whether a program on this machine asks, and not for somebody else.

    A browser is one that may ask for another origin's page, and a proxy one that always does,
    though a proxy that says nothing of it cannot be told from a client.
    """
    headers = request.headers
    is_forwarded = any(name in FORWARDED or name.startswith("x-forwarded") for name in headers)
    return (
        not is_forwarded
        and _is_loopback(address_of(request))
        and _is_loopback_host(headers.get("host", ""))
        and not _has_foreign_origin(headers)
        and (not is_from_elsewhere(headers) or _follows_a_link(request))
    )


def is_from_elsewhere(headers: Headers) -> bool:
    """Tell whether another origin's page made a browser send this.

    The browser says so itself where it talks to a host that it trusts; the comparison is for the
    others, because a proxy may have put another Host.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    return _has_foreign_origin(headers)


def _has_foreign_origin(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    except ValueError:
        return True


def _follows_a_link(request: Request) -> bool:
    # Its page cannot read what comes.
    return request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"


def _is_loopback(address: str) -> bool:
    found = parsed(address)
    return found is not None and found.is_loopback


def _is_loopback_host(host: str) -> bool:
    found = LOOPBACK.fullmatch(host)
    return found is not None and (
        found[1].lower() == "localhost" or _is_loopback(found[1].strip("[]"))
    )
