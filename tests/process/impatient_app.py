"""The real service, whose watch over connections waits one second instead of ten or sixty."""

from asgi_app import app
from web import connections

connections.SECONDS |= {"late": 1.0, "unread": 1.0}

__all__ = ["app"]
