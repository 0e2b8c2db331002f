"""What the library uses of SkyWalking's agent, name by name, beside the agent that is installed."""

import inspect
import pkgutil
from typing import Any

from afterwards.skywalking import life, log_lines
from afterwards.skywalking import names as used
from afterwards.skywalking.agent import FLEET_PLUGINS, HARMFUL_PLUGINS

OURS = {used.MarkedContext, used.SentSegment}  # what is put on the agent's objects


def protocols() -> list[type]:
    """Return all that stand for something of the agent's."""
    classes = [each for _, each in inspect.getmembers(used, inspect.isclass)]
    return [
        each
        for each in classes
        if getattr(each, "_is_protocol", False)
        and each not in OURS
        and each.__module__ == used.__name__
    ]


def names(protocol: type) -> set[str]:
    members = {
        name
        for name, value in vars(protocol).items()
        if callable(value) or isinstance(value, property)
    }
    return {
        name for name in members | {*inspect.get_annotations(protocol)} if not name.startswith("__")
    }


def missing(protocol: type, thing: object) -> list[str]:
    """Return what the thing has not, although the protocol says so."""
    return sorted(
        f"{protocol.__name__}.{name}" for name in names(protocol) if not hasattr(thing, name)
    )


def installed() -> dict[type, list[Any]]:
    """Start the agent, and return what stands for each protocol."""
    agent = life.start("127.0.0.1:1", profile_active=False, has_broker=True)
    from skywalking.trace.span import EntrySpan, ExitSpan
    from skywalking.trace.tags import TagHttpMethod

    context, wire = agent.contexts(), agent.core._SkyWalkingAgent__protocol
    return {
        used.Kind: [agent.request.kind],
        used.Item: [agent.new_item("key", "value")],
        used.Tag: [TagHttpMethod("GET")],
        used.Entry: [agent.new_entry(timestamp=1.0, items=[])],
        used.Segment: [context.segment, agent.new_noop_context().segment],
        used.Counter: [context._sid],
        used.Context: [context, agent.new_noop_context()],
        used.Span: [each(context) for each in (agent.new_noop_span, EntrySpan, ExitSpan)],
        used.Contexts: [agent.contexts],
        used.Sent: [agent.new_batch()],
        used.Channel: [wire.channel],
        used.Reporter: [wire.traces_reporter],
        used.Wire: [wire],
        used.Core: [agent.core],
        used.Config: [agent.config],
        used.Sampler: [agent.sampling.sampling_service],
        used.Sampling: [agent.sampling],
        used.Ids: [agent.ids],
        used.LogReporter: [agent.log_reporter],
    }


def moved() -> list[str]:
    """Return the names that the installed agent has not, or not any more."""
    things = installed()
    gone = [
        name
        for protocol in protocols()
        for thing in things[protocol]
        for name in missing(protocol, thing)
    ]
    from skywalking import config, plugins
    from skywalking.plugins import sw_fastapi
    from starlette.middleware.exceptions import ExceptionMiddleware

    there = {module.name for module in pkgutil.iter_modules(plugins.__path__)}
    gone += [name for name in (*HARMFUL_PLUGINS, *FLEET_PLUGINS) if name not in there]
    if config.agent_log_reporter_layout != log_lines.AGENTS_LAYOUT:
        gone.append("log_lines.AGENTS_LAYOUT")
    before = ExceptionMiddleware.__call__
    sw_fastapi.install()
    life._undo_sw_fastapi()
    if ExceptionMiddleware.__call__ is not before:
        gone.append(f"sw_fastapi.{life.ORIGINAL}")
    return gone


if __name__ == "__main__":
    print("moved:", *moved())
