"""The database: its connections, its tables and their migrations, and every statement."""

from afterwards.store.filter import Filter

__all__ = ["Filter"]
