"""`@task`: a stable name for a task function, its policy, and what its arguments must be."""

import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from afterwards.errors import ArgumentsRefused, UnknownTask
from afterwards.limits import SHORTEST, check
from afterwards.model import Policy

# Characters of what is said about wrong arguments: a stranger may have chosen their names.
MAX_WORDS = 2000
FIELD = "of_"  # before a parameter's name: pydantic's models have a `json` and a `copy` themselves

NO_ARGUMENTS = "{}"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class TaskFunction:
    """A function that can be stored with its arguments, and found again by its name."""

    name: str
    function: Callable[..., Any]
    is_async: bool
    policy: Policy
    positional: tuple[str, ...]
    parameters: tuple[str, ...]
    arguments: type[BaseModel]

    def dump(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """Return the arguments by parameter, and as JSON; raise `ArgumentsRefused`.

        They are what the JSON holds: the first attempt gets no other than those that come later.
        """
        if not (self.parameters or args or kwargs):
            return {}, NO_ARGUMENTS
        try:
            checked = self.arguments.model_validate(self._bound(args, kwargs))
            text = checked.model_dump_json(by_alias=True)
        except Exception as error:
            if (refusal := self._refusal(error)) is None:
                raise
            raise refusal from None
        return self.load(text), text

    def load(self, arguments: str) -> dict[str, Any]:
        """Read what `dump` wrote, perhaps before a deploy; raise `ArgumentsRefused`."""
        if not self.parameters and arguments == NO_ARGUMENTS:
            return {}
        try:
            loaded = self.arguments.model_validate_json(arguments)
        except Exception as error:
            if (refusal := self._refusal(error)) is None:
                raise
            raise refusal from None
        return self._by_parameter(loaded)

    def _refusal(self, error: Exception) -> ArgumentsRefused | None:
        """Say what is wrong with the arguments, without the values of secret ones."""
        if isinstance(error, ValueError):  # ValidationError is one
            return ArgumentsRefused(f"{self.name}: {_in_words(error, self.policy.secret)}")
        if self.policy.secret:
            return ArgumentsRefused(f"{self.name}: {type(error).__name__}")
        return None

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if len(args) > len(self.positional):
            raise ValueError(f"takes {len(self.positional)} positional arguments, got {len(args)}")
        bound = dict(zip(self.positional, args, strict=False))
        if twice := bound.keys() & kwargs.keys():
            raise ValueError(f"got {', '.join(sorted(twice))} twice")
        return {**bound, **kwargs}

    def _by_parameter(self, checked: BaseModel) -> dict[str, Any]:
        return {name: getattr(checked, FIELD + name) for name in self.parameters}


_by_name: dict[str, TaskFunction] = {}
_by_function: dict[Callable[..., Any], TaskFunction] = {}


def task(
    name: str | None = None,
    *,
    attempts: int = 5,
    timeout: float | None = None,
    first_pause: float = 1.0,
    longest_pause: float = 600.0,
    secret: Collection[str] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function as a task function, and leave it as it is.

    `name` is what rows hold: keep it when the function is renamed or moved; by default it is the
    function's own. The arguments are checked against the annotations, and must survive JSON. Pauses
    and `timeout` are seconds. `secret` names arguments that no list, page or log line shows, and
    that are encrypted where the `Afterwards` has a `secret_key`.
    """
    if isinstance(secret, str):
        raise TypeError(f"secret: takes a set of names, such as {{{secret!r}}}")
    check("attempts", attempts, is_whole=True, least=1)
    check("timeout", 1 if timeout is None else timeout, least=SHORTEST)
    check("first_pause", first_pause)
    check("longest_pause", longest_pause)
    policy = Policy(attempts, timeout, first_pause, longest_pause, frozenset(secret))

    def register(function: Callable[P, R]) -> Callable[P, R]:
        entry = _entry(name or function.__name__, function, policy)
        known = _by_name.setdefault(entry.name, entry)
        if known is not entry and _where(known.function) != _where(function):
            places = " and ".join(_where(each)[0] for each in (known.function, function))
            raise ValueError(f"two task functions are named {entry.name!r}, in {places}")
        _by_name[entry.name] = _by_function[function] = entry
        return function

    return register


def of_function(function: Callable[..., Any]) -> TaskFunction | None:
    """Find what was registered for this function, if anything was."""
    try:
        return _by_function.get(function)
    except TypeError:  # an unhashable callable
        return None


def of_name(name: str) -> TaskFunction:
    """Find the task function of this name; raise `UnknownTask` if there is none."""
    try:
        return _by_name[name]
    except KeyError:
        raise UnknownTask(
            f"no task function is named {name!r}; deploy one that is, then retry the task"
        ) from None


def names() -> list[str]:
    """List the names of all task functions."""
    return list(_by_name)


def longest(default: float) -> float:
    """Return the longest time limit of a task function; `default` is of those that set none."""
    return max(entry.policy.timeout or default for entry in _by_name.values())


def _entry(name: str, function: Callable[..., Any], policy: Policy) -> TaskFunction:
    signature = inspect.signature(function, eval_str=True)
    fields: dict[str, Any] = {
        FIELD + each.name: (
            Any if each.annotation is each.empty else each.annotation,
            Field(... if each.default is each.empty else each.default, alias=each.name),
        )
        for each in signature.parameters.values()
    }
    if any(
        each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        for each in signature.parameters.values()
    ):
        raise TypeError(
            f"{name}: a task function takes no * and ** parameters, because its row holds them by "
            "name"
        )
    if unknown := policy.secret - {*signature.parameters}:
        raise ValueError(f"{name}: secret names {', '.join(sorted(unknown))}, no parameter of it")
    model = create_model(
        name, __config__=ConfigDict(extra="forbid", ser_json_inf_nan="constants"), **fields
    )
    positional = tuple(
        each.name for each in signature.parameters.values() if each.kind is not each.KEYWORD_ONLY
    )
    return TaskFunction(
        name,
        function,
        inspect.iscoroutinefunction(function),
        policy,
        positional,
        (*signature.parameters,),
        model,
    )


def _where(function: Callable[..., Any]) -> tuple[str, str]:
    """Tell which function of which file it is: a module that is loaded twice has the same ones."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    # As __main__ it may have a relative path.
    return os.path.realpath(code.co_filename) if code else "", function.__qualname__


def _in_words(error: Exception, secret: Collection[str]) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    errors = error.errors(include_url=False, include_input=False)[:5]
    return "; ".join(_in_word(each, secret) for each in errors)[:MAX_WORDS]


def _in_word(error: ErrorDetails, secret: Collection[str]) -> str:
    if error["loc"] and error["loc"][0] in secret:  # a validator's words may repeat the value
        return f"{error['loc'][0]}: {error['type']}"
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
