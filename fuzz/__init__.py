"""Hostile requests against the real service: `make fuzz`."""

OTHERS_ERROR = r"^\S+ (ERROR|CRITICAL) +(?=\S)(?!tasks:)"  # in the log: tasks may fail
QUICK = {"SLEEP_SECONDS": "0.02", "NOTIFY_SECONDS": "0.02", "WORK_SECONDS": "0.02"}
