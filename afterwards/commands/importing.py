"""Finding the `Afterwards` that a person means."""

import importlib
import os
import sys
from argparse import Namespace
from types import ModuleType

from afterwards.app import Afterwards
from afterwards.commands import Complaint
from afterwards.installation import owner_of

WRONG_USAGE = 2
SUCH_AS = "such as main:afterwards for `afterwards = Afterwards(...)` in main.py"


def named(arguments: Namespace) -> Afterwards:
    """Return what `module:name` or `--database` names; raise `Complaint` where there is none."""
    path, *more = arguments.words or [""]
    if more:
        raise Complaint(f"cannot make anything of {' '.join(more)}", WRONG_USAGE)
    if arguments.database is None:
        return find(path)
    if path:
        raise Complaint("takes module:name or --database, not both", WRONG_USAGE)
    try:
        return Afterwards(arguments.database, table_prefix=arguments.table_prefix)
    except ValueError as error:
        option = str(error).replace("url:", "--database:").replace("table_prefix", "--table-prefix")
        raise Complaint(option, WRONG_USAGE) from None


def find(path: str) -> Afterwards:
    """Import an `Afterwards`, or an application that has installed one, by its `module:name`."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise Complaint(f"takes module:name, {SUCH_AS}", WRONG_USAGE)
    if not all(part.isidentifier() for part in module_name.split(".")):
        spelled = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise Complaint(f"{module_name} is no module's name; write {spelled}:{name}", WRONG_USAGE)
    module = _imported(module_name)
    found: object = module
    for each in name.split("."):
        if not hasattr(found, each):
            raise Complaint(f"{module_name} has no {name}; {_what_it_has(module)}", WRONG_USAGE)
        found = getattr(found, each)
    owner = _owner(found)
    if owner is None:
        kind = f"is no Afterwards, but of the type {type(found).__name__}"
        if hasattr(found, "build_middleware_stack"):
            kind = "has installed no Afterwards: call install(app)"
        raise Complaint(f"{path} {kind}; {_what_it_has(module)}", WRONG_USAGE)
    return owner


def _imported(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:  # as under PYTHONSAFEPATH
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Complaint(f"{name} cannot be imported: {error}") from error
        looked = f"looked for {error.name.replace('.', '/')}.py in {here} and among the packages"
        advice = f"write module:name, {SUCH_AS}, and start where main.py is"
        raise Complaint(
            f"there is no module {error.name}: {looked}; {advice}", WRONG_USAGE
        ) from None
    except SystemExit as end:
        why = f"it ends the process with status {end.code}; what it said stands above"
        raise Complaint(f"{name} cannot be imported: {why}") from None
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise Complaint(f"{name} cannot be imported: {why}") from error


def _owner(found: object) -> Afterwards | None:
    return found if isinstance(found, Afterwards) else owner_of(found)


def _what_it_has(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if _owner(value) is not None]
    if not names:
        return "it has none at all: make one at the top level of the module"
    return "it has " + " and ".join(f"{module.__name__}:{name}" for name in sorted(names))
