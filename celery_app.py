"""The service as Celery loads it; `celery -A celery_app worker --concurrency 4` serves it."""

import tasks as task_functions  # importing them registers them
import tracing
from afterwards.attempt import current_task_id
from afterwards.brokers.celery_worker import worker_app
from afterwards.limits import Limits
from afterwards.store.database import Database
from settings import exit_with, settings
from web import logs

__all__ = ["app", "task_functions"]

logs.configure(
    settings.log_level, settings.log_format, task_id=current_task_id.get, trace_id=tracing.trace_id
)
if settings.celery_broker_url is None:
    exit_with("CELERY_BROKER_URL: not set, takes the broker that the web processes publish to")
app = worker_app(
    settings.celery_broker_url,
    lambda: Database(settings.database_url),
    limits=Limits(timeout=settings.request_timeout, keep_days=settings.keep_days),
    drain_seconds=settings.drain_seconds,
    tracing=tracing.skywalking,
)
