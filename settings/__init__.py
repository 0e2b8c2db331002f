"""The settings of the service: environment variables, which `table` lists and `reading` reads."""

from settings.arguments import MAX_BODY, allowed_hosts, for_afterwards, for_operators, listed
from settings.kinds import OFF, PROXIES
from settings.reading import WrongSetting, exit_with, read, read_or_exit, settings
from settings.table import SECRET, Settings

__all__ = [
    "MAX_BODY",
    "OFF",
    "PROXIES",
    "SECRET",
    "Settings",
    "WrongSetting",
    "allowed_hosts",
    "exit_with",
    "for_afterwards",
    "for_operators",
    "listed",
    "read",
    "read_or_exit",
    "settings",
]
