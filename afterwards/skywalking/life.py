"""The agent's life in a process: started and patched once, whoever asks, and stopped in time."""

import asyncio
import inspect
import logging
import os
import re
import socket
import threading
import time
from contextlib import suppress

from starlette.middleware.exceptions import ExceptionMiddleware

from afterwards.skywalking import agent_log, patches
from afterwards.skywalking.agent import FLEET_PLUGINS, HARMFUL_PLUGINS, Agent, load
from afterwards.skywalking.failure import in_words

log = logging.getLogger("tracing")

FLUSH_SECONDS = 3
ORIGINAL = "_original_fast_api"  # what sw_fastapi calls the function that it has replaced

_running: list[Agent] = []  # one for each that has started it: the agent is one to a process


def start(
    collector: str,
    *,
    profile_active: bool,
    has_broker: bool,
    worker_name: str | None = None,
    host: str | None = None,
) -> Agent:
    """Start the agent, or join who has started it here; raise whatever keeps it from starting.

    `worker_name` is for a broker's consumer: "" for the service's name and `-worker`.
    """
    agent = _running[0] if _running else load()
    if not _running:
        _start(agent, collector, profile_active, has_broker, worker_name, host)
    _running.append(agent)
    agent.start_noop_span()  # what the lifespan itself does is no request and no task
    return agent


def running() -> Agent | None:
    """Return the agent, while somebody has it run."""
    return _running[-1] if _running else None


async def stop() -> None:
    """Leave the agent; the last one gives it 3 s to send what it has."""
    agent = _running.pop()
    if _running:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def flush() -> None:
        try:
            agent.core.stop()
        except Exception as error:
            log.warning("SkyWalking did not get the last segments: %s", in_words(error))
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    # Not asyncio.to_thread: its threads are joined at exit, and this one may hang in a collector
    # that never answers.
    threading.Thread(target=flush, name="tracing-flush", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await ended.wait()
    except TimeoutError:
        log.warning(
            "SkyWalking did not take the last segments within %d s; they are lost", FLUSH_SECONDS
        )


def _start(
    agent: Agent,
    collector: str,
    profile_active: bool,
    has_broker: bool,
    worker_name: str | None,
    host: str | None,
) -> None:
    config = agent.config
    _undo_sw_fastapi()
    _check(agent)
    agent_log.calm(logging.getLogger("skywalking"), collector)
    config.agent_profile_active = profile_active
    # The innermost frames, not the outer.
    config.agent_cause_exception_depth = -abs(config.agent_cause_exception_depth)
    if not agent.core.started():  # `sw-python run` starts it before us
        config.agent_collector_backend_services = collector
        harmful = (*HARMFUL_PLUGINS, *(FLEET_PLUGINS if has_broker else ()))
        config.agent_disable_plugins = [*config.agent_disable_plugins, *harmful]
        _name(agent, worker_name, host or socket.gethostname())
        agent.core.start()
    patches.apply(agent)
    if config.agent_meter_reporter_active:
        agent.meters.register()


def _undo_sw_fastapi() -> None:
    patched = ExceptionMiddleware.__call__
    original = inspect.getclosurevars(patched).nonlocals.get(ORIGINAL)
    if original is not None:
        ExceptionMiddleware.__call__ = original  # type: ignore[method-assign]


def _check(agent: Agent) -> None:
    core, level = agent.core, agent.config.agent_log_reporter_level
    if not hasattr(core, "started"):
        raise RuntimeError(
            "sw-python started it with SW_AGENT_ASYNCIO_ENHANCEMENT, which fails on the first spans"
        )
    if core.started_pid == os.getpid() and not core.started():
        raise RuntimeError(
            "it has been stopped in this process; a second start would patch every library twice"
        )
    if not isinstance(logging.getLevelName(level), int):  # it would raise at the first log line
        raise ValueError(f"SW_AGENT_LOG_REPORTER_LEVEL: {level!r} is not a level")


def _name(agent: Agent, worker_name: str | None, host: str) -> None:
    """Tell apart instances that share a name, and a service from what consumes its tasks."""
    config = agent.config
    if worker_name is not None:
        own = config.agent_name.removesuffix("-worker") + "-worker"
        config.agent_name = worker_name or own
    name, pid = config.agent_instance_name, os.getpid()
    if re.fullmatch("[0-9a-f]{32}", name):  # the default, a UUID
        name, began = host, time.strftime("-%Y%m%d-%H%M%S", time.gmtime())
    else:
        began = ""
    config.agent_instance_name = f"{name}-{pid}{began}".lstrip("-")
