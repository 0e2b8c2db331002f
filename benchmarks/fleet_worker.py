"""Our Celery worker, as celery_app.py makes it, with the tasks that are measured."""

import logging

from benchmarks import apps  # before the worker, which takes the tasks that are registered by then
from celery_app import app

__all__ = ["app", "apps"]

logging.getLogger().setLevel(logging.WARNING)  # as in the applications
