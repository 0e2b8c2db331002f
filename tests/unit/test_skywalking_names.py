"""What services, instances and components are called in SkyWalking."""

import os
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from afterwards.skywalking import agent as agents
from afterwards.skywalking import life

UUID = "5" * 32


def named(name: str = "shop", instance: str = UUID, worker: str | None = None) -> tuple[str, str]:
    config = SimpleNamespace(agent_name=name, agent_instance_name=instance)
    agent: Any = SimpleNamespace(config=config)
    life._name(agent, worker, "web.1")
    return config.agent_name, config.agent_instance_name


def test_only_consumers_get_a_workers_name() -> None:
    assert named()[0] == "shop"
    assert named(worker="")[0] == "shop-worker"
    assert named("shop-worker", worker="")[0] == "shop-worker"
    assert named(worker="shop")[0] == "shop"


def test_instances_are_named_for_their_host() -> None:
    assert re.fullmatch(rf"web\.1-{os.getpid()}-\d{{8}}-\d{{6}}", named()[1])


def test_an_instances_own_name_is_kept() -> None:
    assert named(instance="mine")[1] == f"mine-{os.getpid()}"
    assert named(instance="")[1] == str(os.getpid())


def test_starlette_is_not_called_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fastapi", raising=False)
    assert agents.load().request.component.name == "General"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fastapi", SimpleNamespace())
    assert agents.load().request.component.name == "FastAPI"  # type: ignore[attr-defined]
