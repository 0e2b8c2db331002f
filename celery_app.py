"""The same tasks, as Celery's workers load them: `celery -A celery_app worker --concurrency 8`."""

import tasks as task_functions  # importing them registers them
import tracing
from afterwards import Afterwards, current_task_id
from effects import images
from settings import exit_with, for_afterwards, read_or_exit
from web import logs

__all__ = ["app", "task_functions"]

settings = read_or_exit()
if settings.celery_broker_url is None:
    exit_with("CELERY_BROKER_URL: not set, takes the broker that the web processes publish to")
logs.configure(
    settings.log_level,
    settings.log_format,
    current_task_id.get,
    tracing.trace_id,
    is_reported=settings.sw_agent_collector_backend_services is not None,
)
kept = images.Kept(settings.images_dir)
app = Afterwards(**for_afterwards(settings), tracing=tracing, attachments=kept).celery()
