import logging

import pytest

from afterwards.skywalking import agent_log


@pytest.fixture
def agents_log() -> logging.Logger:
    logger = logging.Logger("skywalking")
    agent_log.calm(logger, "oap:11800")
    return logger


def complaint(message: str, *args: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("skywalking", level, "", 0, message, args, None)


def test_each_agent_complaint_is_told_once(
    monkeypatch: pytest.MonkeyPatch, agents_log: logging.Logger
) -> None:
    monkeypatch.setattr(agent_log, "_quiet_until", {})
    full, lost = (
        "the queue is full, the segment will be abandoned",
        "the queue is full, the log will be abandoned",
    )
    assert [bool(agents_log.filter(complaint(text))) for text in (full, full, lost, full)] == [
        True,
        False,
        True,
        False,
    ]


def test_a_complaint_is_told_again_later(
    monkeypatch: pytest.MonkeyPatch, agents_log: logging.Logger
) -> None:
    monkeypatch.setattr(agent_log, "_quiet_until", {"the queue is full": -1.0})
    assert agents_log.filter(complaint("the queue is full"))


def test_the_agents_information_is_always_told(agents_log: logging.Logger) -> None:
    lines = [complaint("starting in pid-%d", 1, level=logging.INFO) for _ in range(3)]
    assert all(agents_log.filter(line) for line in lines)
