"""What can be written after `python -m afterwards`, and what `--help` says of it."""

import re
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from argparse import ArgumentTypeError as Wrong
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from afterwards.commands import changing, check, listing, migrate, worker
from afterwards.model import State

PROGRAM = "python -m afterwards"
VERBS = ("list", "show", "retry", "cancel", "delete")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

ABOUT = """Durable background tasks: run them, look at them, look after their tables.

module:name is your Afterwards, or the application that installed it: main:afterwards
means `afterwards = Afterwards(...)` in main.py. Start where main.py is."""
WORKER = """Run tasks without a web server. As many workers as you like may share a database.

SIGTERM or Ctrl-C: claims no more tasks, lets what runs end (drain_seconds, 20 unless your
Afterwards says otherwise), and gives back the rest. Ctrl-C once more: leaves at once, and gives
back all that runs; others run it again, and no attempt is counted."""
MIGRATE = """Bring the tables up to date. Each start does so too; before a deploy it can be done
here, and takes as long as large tables take."""
CHECK = """Say what is set up well, and what to do about the rest.

It looks at the settings, the database, its tables, the broker and the task functions, and changes
nothing. Status 1: something is not well."""
TASKS = """Look at tasks, and change them: list (may be left out), show, retry, cancel, delete.
Each has a --help of its own."""
LIST = """List tasks, the newest first. Of a long error the beginning is shown; `show` tells all."""
CHANGES = {
    "retry": "Queue dead and cancelled tasks anew, with all their attempts.",
    "cancel": "Cancel tasks that have not settled; what runs is cut off within seconds.",
    "delete": "Delete tasks that have settled: succeeded, dead and cancelled ones.",
}
WHICH = """
Say which by their ids, or by a filter: then all that match. It tells how many they are and asks
first; where nobody can be asked it takes --yes."""


def parse(words: Sequence[str]) -> Namespace:
    """Read the words; where they are wrong say how, and end the process with status 2."""
    if words[:1] == ["tasks"] and not {*words[1:2]} & {*VERBS, "-h", "--help"}:
        words = ["tasks", "list", *words[1:]]
    arguments, left = _parser().parse_known_args(words)
    # Python's parser gives up on what may be left out, once an option has come before it.
    if left and (not hasattr(arguments, "words") or any(word.startswith("-") for word in left)):
        arguments.parser.error(f"cannot make anything of {' '.join(left)}")
    if left:
        arguments.words = [*arguments.words, *left]
    return arguments


def _parser() -> ArgumentParser:
    parser = _described(ArgumentParser(prog=PROGRAM), ABOUT)
    commands = parser.add_subparsers(metavar="command", required=True)
    running = _command(commands, "worker", WORKER, worker.run)
    running.add_argument("path", metavar="module:name")
    _place(_command(commands, "migrate", MIGRATE, migrate.run))
    _place(_command(commands, "check", CHECK, check.run))
    tasks = _described(commands.add_parser("tasks", help=_first(TASKS)), TASKS)
    verbs = tasks.add_subparsers(metavar="list | show | retry | cancel | delete", required=True)
    listed = _command(verbs, "list", LIST, listing.run)
    _place(listed)
    _filter(listed)
    listed.add_argument("--limit", type=_count, default=100, help="so many at most (100)")
    shown = _command(verbs, "show", "Show all that is known of tasks.", listing.show)
    _place(shown, "ID ...")
    for verb, about in CHANGES.items():
        change = _command(verbs, verb, about + WHICH, changing.run)
        change.set_defaults(verb=verb)
        _place(change, "[ID ...]")
        _filter(change)
        change.add_argument("--yes", action="store_true", help="do not ask")
    for each in verbs.choices.values():
        each.add_argument("--json", action="store_true", help="for machines: JSON, one to a line")
    return parser


def _described(parser: ArgumentParser, about: str) -> ArgumentParser:
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.description = about
    return parser


def _command(
    commands: Any, name: str, about: str, run: Callable[[Namespace], int]
) -> ArgumentParser:
    parser: ArgumentParser = _described(commands.add_parser(name, help=_first(about)), about)
    parser.set_defaults(run=run, parser=parser)
    return parser


def _first(about: str) -> str:
    return re.split(r"[.:]", about)[0].lower()


def _place(parser: ArgumentParser, more: str = "") -> None:
    wanted = ["(module:name | --database URL)", more, "[options]"]
    parser.usage = " ".join([parser.prog, *filter(None, wanted)])
    of_what = "your Afterwards" + (", and the ids of tasks" if more else "")
    parser.add_argument("words", metavar="module:name", nargs="*", help=of_what)
    parser.add_argument(
        "--database", metavar="URL", help="instead: postgres://... or sqlite:///..."
    )
    prefix = "of the tables' names, with --database (afterwards_)"
    parser.add_argument("--table-prefix", metavar="PREFIX", default="afterwards_", help=prefix)


def _filter(parser: ArgumentParser) -> None:
    states = [state.value for state in State]
    parser.add_argument("--state", choices=states, metavar="STATE", help=", ".join(states))
    parser.add_argument("--name", help="the task's name, as @task has it")
    parser.add_argument("--error", metavar="TEXT", help="a part of the error's kind or message")
    ago = "created before 2026-11-01T00:00:00Z, or so long ago: 90s, 30m, 12h, 7d"
    parser.add_argument("--before", metavar="WHEN", type=_moment, help=ago)


def _moment(text: str) -> datetime:
    if ago := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Wrong(f"{text!r} is no moment; such as 2026-11-01T00:00:00Z, 12h, 7d") from None
    if moment.tzinfo is None:
        raise Wrong(f"{text} takes a time zone: {text}Z, or {text}+01:00")
    return moment


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,6}", text):
        raise Wrong(f"{text!r} is no whole number from 1 to 9999999")
    return int(text)
