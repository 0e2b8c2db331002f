"""The table that `tasks list` prints."""

import pytest

from afterwards.commands.table import age_in_words, table

ID = "task-20261121-184310-123456-0123456789abcdef"


def rows(name: str = "notes", error: str = "") -> list[list[str]]:
    return [[ID, "dead", "5/5", "3h", name, error], [ID, "queued", "0/5", "12d", "short", ""]]


def test_nothing_is_cut_without_a_width() -> None:
    assert list(table(rows("n" * 99, "e" * 999), None))[1].endswith("n" * 99 + "  " + "e" * 999)


def test_a_narrow_table_tells_errors_below() -> None:
    lines = list(table(rows("n" * 99, "e" * 999), 80))
    assert [len(line) for line in lines[1:3]] == [80, 80]
    assert lines[2] == "    " + "e" * 75 + "…"
    assert len(lines) == 4


def test_a_wide_table_tells_errors_beside() -> None:
    lines = list(table(rows("n" * 99, "e" * 999), 120))
    assert len(lines) == 3
    assert max(map(len, lines)) == 120


@pytest.mark.parametrize("width", [80, 100, 120, 200, None])
def test_columns_stand_below_their_headers(width: int | None) -> None:
    header, first, second = table(rows(), width)
    assert header.index("NAME") == first.index("notes") == second.index("short")


def test_wide_characters_take_two_columns() -> None:
    lines = list(table(rows("名" * 99, "e" * 30), 120))
    assert lines[1].index("eeee") < lines[2].index("short") + 60
    assert all(len(line) + line.count("名") <= 120 for line in lines)


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (90_000, "1d")]
)
def test_an_age_has_one_unit(seconds: float, words: str) -> None:
    assert age_in_words(seconds) == words
