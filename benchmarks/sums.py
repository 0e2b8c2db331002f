"""The sums of docs/growing.md from the figures in it: `python -m benchmarks.sums FILE`."""

import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

RATES = (10_000, 100_000)
FIGURE = re.compile(r"^\| ([A-Z]) \|.*\| ([\d,]+|-) \|$", re.MULTILINE)
# The first cell of a sum holds its three formulas; the two behind it are written here.
SUM = re.compile(r"^(\| [^|]*: )([^|:]+)( \|) [^|]* \| [^|]* \|$", re.MULTILINE)

Figures = Mapping[str, int | None]


def figures(text: str) -> Figures:
    """Read the figures; None is one that nobody has measured."""
    found = FIGURE.findall(text)
    return {name: None if value == "-" else int(value.replace(",", "")) for name, value in found}


def summed(text: str) -> str:
    """Return the page with its sums as its figures have them."""
    measured = figures(text)

    def line(match: re.Match[str]) -> str:
        formulas = re.split(r", (?![A-Z]\))", match[2])
        cells = (", ".join(_counts(formulas, rate, measured)) for rate in RATES)
        return f"{match[1]}{match[2]}{match[3]} {' | '.join(cells)} |"

    head, table, rest = text.partition("\n| | R = ")
    sums, end, after = rest.partition("\n\n")
    return head + table + SUM.sub(line, sums) + end + after


def _counts(formulas: list[str], rate: int, measured: Figures) -> Iterator[str]:
    for formula in formulas:
        names = re.findall("[A-QS-Z]", formula)
        values = [value for name in names if (value := measured[name]) is not None]
        if len(values) < len(names):
            yield "-"
        else:
            yield f"{math.ceil(rate / min(values)):,}" if values else "0"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(summed(page.read_text()))
