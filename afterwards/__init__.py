"""Answer at once, do the rest afterwards: background tasks that survive, for any Starlette application."""
