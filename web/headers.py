"""The headers that every answer bears, whoever made it: what a browser may do with it."""

# A page or a picture that needs more sets its own, which is left alone: pages by `policy`.
ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    # Not no-referrer: with that a browser says "Origin: null" where our own forms are sent.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

# Without subdomains: they may be somebody else's. The second is ignored without TLS.
OVER_TLS = [
    *ALWAYS,
    (b"strict-transport-security", b"max-age=31536000"),
    (b"cross-origin-opener-policy", b"same-origin"),
]

NAMES = frozenset(name for name, _ in OVER_TLS)


def policy(*, forms: str = "'none'", **sources: str) -> str:
    """Return a Content-Security-Policy for a page that loads from these sources, and no others.

    `policy(script="'self'", style="'self'", forms="'self'")`: what is named here becomes
    `script-src` and the like, `forms` is where its forms may be sent. Nobody may frame the page.
    """
    allowed = "".join(f"; {kind}-src {where}" for kind, where in sources.items())
    rest = f"; base-uri 'none'; form-action {forms}; frame-ancestors 'none'"
    return f"default-src 'none'{allowed}{rest}"
