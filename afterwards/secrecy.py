"""Keeps secret arguments apart: from the others in a row, and out of an error's text."""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

HIDDEN = "***"
SHORTEST = 3  # characters: shorter ones are in every text

Hide = Callable[[str], str]


def apart(arguments: str, secret: Collection[str]) -> tuple[str, str]:
    """Take the secret ones out of arguments as JSON, and return both."""
    given = json.loads(arguments)
    secrets = {name: value for name, value in given.items() if name in secret}
    shown = {**given, **dict.fromkeys(secrets, HIDDEN)}
    return _json(shown), _json(secrets)


def together(arguments: str, secrets: str) -> str:
    """Put the arguments together again that were taken apart."""
    return _json({**json.loads(arguments), **json.loads(secrets)})


def without(error: BaseException, secrets: Mapping[str, Any]) -> BaseException:
    """Return the error where no text of it holds a secret argument, else one like it that hides it.

    That is of the same name, and an instance of the same class; so are the errors that led to it.
    """
    hide = _hiding(secrets)
    chain = list(_chain(error, set()))
    if all(hide(text) == text for each in chain for text in _texts(each)):
        return error
    return _like(error, hide, {})


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _hiding(secrets: Mapping[str, Any]) -> Hide:
    forms = {form for text in _leaves(secrets) if len(text) >= SHORTEST for form in _forms(text)}
    if not forms:
        return lambda text: text
    longest_first = sorted(forms, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
    return lambda text: pattern.sub(HIDDEN, text)


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _forms(text: str) -> set[str]:
    """List how a text may be written within another: in quotes, in JSON, in a URL."""
    as_json = {json.dumps(text, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False)}
    return {text, repr(text)[1:-1], quote(text), quote(text, safe=""), *as_json}


def _chain(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    grouped = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for each in (error.__cause__, error.__context__, *grouped):
        yield from _chain(each, seen)


def _texts(error: BaseException) -> list[str]:
    try:
        return [str(error), repr(error), *map(str, getattr(error, "__notes__", ()))]
    except Exception:  # its text cannot be had, so it tells nothing
        return []


def _like(error: BaseException, hide: Hide, made: dict[int, BaseException]) -> BaseException:
    if id(error) in made:
        return made[id(error)]
    if isinstance(error, BaseExceptionGroup):
        grouped = [_like(each, hide, made) for each in error.exceptions]
        copy: BaseException = BaseExceptionGroup(hide(error.message), grouped)
    else:
        copy = _copied(error, hide)
    made[id(error)] = copy
    if error.__cause__ is not None:
        copy.__cause__ = _like(error.__cause__, hide, made)
    if error.__context__ is not None:
        copy.__context__ = _like(error.__context__, hide, made)
    copy.__suppress_context__ = error.__suppress_context__
    for note in getattr(error, "__notes__", ()):
        copy.add_note(hide(str(note)))
    return copy.with_traceback(error.__traceback__)


def _copied(error: BaseException, hide: Hide) -> BaseException:
    kind, text = type(error), hide(_texts(error)[0] if _texts(error) else "")
    hiding = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__init__": lambda self: None,
        "__str__": lambda self: text,
        "__repr__": lambda self: f"{kind.__name__}({text!r})",
    }
    try:
        copy: BaseException = type(kind.__name__, (kind,), hiding)()
        vars(copy).update(
            {name: value for name, value in vars(error).items() if name != "__notes__"}
        )
    except Exception:  # a class that takes no other below it, or makes its own objects
        copy = type(kind.__name__, (Exception,), hiding)()
    return copy
