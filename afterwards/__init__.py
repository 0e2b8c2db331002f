"""Answer at once, do the rest afterwards: durable background tasks for Starlette and FastAPI."""

from afterwards.app import Afterwards
from afterwards.attempt import current_task_id
from afterwards.background import InOrder, Later
from afterwards.registry import task
from afterwards.retries import GiveUp, RetryAfter

__all__ = ["Afterwards", "GiveUp", "InOrder", "Later", "RetryAfter", "current_task_id", "task"]
