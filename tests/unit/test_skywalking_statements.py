"""What is told of a statement: no value that it holds, and no credentials of its database."""

import time

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from afterwards.skywalking import SkyWalking, statements
from afterwards.skywalking.statements import LOOKED_AT, SENT, where_is, without_values


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT *\n  FROM users  WHERE id = $1", "SELECT * FROM users WHERE id = $1"),
        ("SELECT a1 FROM b$c WHERE d = :e AND f = ?", "SELECT a1 FROM b$c WHERE d = :e AND f = ?"),
        ("x = 'it''s a secret' AND y = 1.5e3", "x = ? AND y = ?"),
        ("x = 'C:\\' AND y = 'secret'", "x = ? AND y = ?"),
        (r"x = E'it\'s secret' AND y", "x = ? AND y"),
        ("x = date'2026-01-01' AND y = N'secret'", "x = date? AND y = ?"),
        ("x = $$secret$$ OR y = $a$ $b$ secret $a$", "x = ? OR y = ?"),
        ("\"it's a column\" = 'secret'", '"it\'s a column" = ?'),
        ("x -- it's a comment\n = 'secret'", "x = ?"),
        ("x /* it's secret */ = 'secret'", "x = ?"),
        ("x = $1::VARCHAR AND y = %(name)s", "x = $1::VARCHAR AND y = %(name)s"),
        ("VALUES (0x0f, 'never ends in secret", "VALUES (?, ?"),
    ],
)
def test_only_values_and_comments_go(statement: str, told: str) -> None:
    assert without_values(statement) == told


def test_what_is_told_has_a_bound() -> None:
    assert len(without_values("a " * LOOKED_AT)) == SENT


@pytest.mark.parametrize("piece", ["'", "/*", "$$", "$a$", '"', r"e'\'", "'a", "a", "1", "--"])
def test_no_statement_takes_long(piece: str) -> None:
    def took(count: int) -> float:
        began = time.perf_counter()
        without_values(piece * count)
        return time.perf_counter() - began

    took(10)
    assert took(LOOKED_AT * 8 // len(piece)) < 1.0  # the square of it would be minutes


@pytest.mark.parametrize(
    ("kind", "url", "peer", "instance"),
    [
        ("postgresql", "postgresql://ada:secret@db.example:6432/shop", "db.example:6432", "shop"),
        ("postgresql", "postgresql://ada:secret@db.example/shop", "db.example:5432", "shop"),
        ("postgresql", "postgresql:///shop?host=/run/pg", "/run/pg:5432", "shop"),
        ("postgresql", "postgresql:///shop?host=a&host=b", "a,b:5432", "shop"),
        ("sqlite", "sqlite:///data/tasks.db", "data/tasks.db", "data/tasks.db"),
        ("sqlite", "sqlite://", ":memory:", ""),
    ],
)
def test_a_database_is_named_without_credentials(
    kind: str, url: str, peer: str, instance: str
) -> None:
    assert where_is(kind, make_url(url)) == (kind, peer, instance)


def test_untraced_engines_are_not_listened_to() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    SkyWalking().trace_statements(engine)
    assert not engine.sync_engine.dispatch.before_cursor_execute
    statements.listen()  # as `start` does
    assert engine.sync_engine.dispatch.before_cursor_execute


def test_engines_of_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    SkyWalking().trace_statements(engine)
    monkeypatch.setattr(engine.dialect, "name", "mysql")
    with pytest.raises(ValueError, match="Postgres or SQLite"):
        SkyWalking().trace_statements(engine)
