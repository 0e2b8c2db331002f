"""The certificate authorities that outgoing HTTP believes, loaded once."""

import functools
import ssl

import httpx


@functools.cache
def verifying() -> ssl.SSLContext:
    """Load the context that checks certificate and name, on the first call only.

    Loading takes some 25 ms on the event loop, and httpx would do it for every client. For HTTP
    alone: httpcore sets the context's ALPN to http/1.1, which an SMTP server may answer by breaking
    off the handshake.
    """
    return httpx.create_ssl_context(trust_env=False)
