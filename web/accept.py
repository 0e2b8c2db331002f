"""Which of two kinds of answer a client would rather have (RFC 9110, section 12.5.1)."""

from starlette.requests import Request

MAX_ACCEPT = 1000  # characters; browsers send a tenth of that


def prefers_html(request: Request) -> bool:
    """Tell whether the request's Accept ranks HTML above JSON, as browsers do and curl does not."""
    accept = ",".join(request.headers.getlist("accept")).lower()
    if len(accept) > MAX_ACCEPT:
        return False
    qualities = dict(_quality(part) for part in accept.split(","))
    return _of(qualities, "text/html") > _of(qualities, "application/json")


def _of(qualities: dict[str, float], media_type: str) -> float:
    kind, _, _ = media_type.partition("/")
    ranges = (media_type, f"{kind}/*", "*/*")  # the closest that is there decides
    return next((qualities[each] for each in ranges if each in qualities), 0.0)


def _quality(part: str) -> tuple[str, float]:
    media_range, *parameters = (each.strip() for each in part.split(";"))
    weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    try:
        quality = float(weight)
    except ValueError:
        quality = 0.0
    return media_range, quality if 0 <= quality <= 1 else 0.0
