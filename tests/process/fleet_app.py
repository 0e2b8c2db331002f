"""The service of `bad_days_app`, which publishes; its variables are those of `fleet_worker`."""

import os
from collections.abc import Sequence

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from afterwards.brokers import Message
from afterwards.store import tasks as store

if "CELERY_BROKER_URL" in os.environ:
    from afterwards.brokers import celery
    from afterwards.brokers.celery import CeleryBroker

    celery.QUEUE = os.environ["QUEUE"]
store.PUBLISH_AGAIN_SECONDS = float(os.environ.get("PUBLISH_AGAIN_SECONDS", "30"))

from tests.process import bad_days_app  # noqa: E402  # it takes the constants above
from web.routing import Route  # noqa: E402

if os.environ.get("DIE_ONCE") == "before publishing":

    def die_instead(batch: Sequence[Message]) -> None:
        if batch:
            bad_days_app.die()

    setattr(CeleryBroker, "publish", lambda self, batch: die_instead(batch))  # noqa: B010


async def remembered() -> None:
    """Live in memory only."""


async def in_memory(request: Request) -> Response:
    return PlainTextResponse("ok", background=BackgroundTask(remembered))


app = bad_days_app.app
app.router.routes.append(Route("/in_memory", in_memory))
