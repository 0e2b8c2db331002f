"""A Celery worker on a bad day: the tasks of `bad_days_app`, and what these variables say.

`QUEUE` keeps tests apart that share a broker; `PUBLISH_AGAIN_SECONDS` says when what nobody claimed
is published again; `FORGOTTEN` is a task function that this worker's code lacks, as an older
version would.
"""

import os

from afterwards import registry
from afterwards.brokers import celery
from afterwards.store import tasks as store

celery.QUEUE = os.environ.get("QUEUE", celery.QUEUE)
store.PUBLISH_AGAIN_SECONDS = float(os.environ.get("PUBLISH_AGAIN_SECONDS", "30"))

# It takes the constants above, and registers its tasks.
import tests.process.bad_days_app  # noqa: E402, F401

registry._by_name.pop(os.environ.get("FORGOTTEN", ""), None)

import celery_app  # noqa: E402  # it registers what is left with Celery

app = celery_app.app
