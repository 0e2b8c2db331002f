"""The service's answers to what no handler foresaw, as problems."""

import errno
import logging

from starlette.requests import Request
from starlette.responses import Response

from afterwards.errors import RETRY_SECONDS
from afterwards.problems import response

log = logging.getLogger("service")


async def no_descriptors(request: Request, error: Exception) -> Response:
    """Answer that this process can open nothing more; raise any other `OSError`, which is a bug."""
    if not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
        raise error
    log.error(
        "answering 503, out of file descriptors: raise the limit (ulimit -n), "
        "or find what holds so many"
    )
    detail = "The service is out of file descriptors. Send the request again later."
    return response(503, detail, headers={"Retry-After": str(RETRY_SECONDS)})


async def nobody(request: Request, error: Exception) -> Response:
    """Answer a client that left before it had sent its whole body; this is for the access log."""
    return response(400, "The client left before its body was whole.")
