"""The pages that people read, and the examples in them."""

import ast
import re
from importlib.util import find_spec
from typing import Any

from tests.serving import ROOT

PAGES = sorted(
    str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
)


def text_of(page: str) -> str:
    """Return the page's text."""
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    """List the page's blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def commands(page: str, beginning: str) -> list[tuple[str, str]]:
    """List the commands that begin so, each with the answer that the page gives."""
    consoles = "".join(blocks(page, "console"))
    return re.findall(
        rf"^\$ ({re.escape(beginning)}[^\n]*)\n((?:(?!\$ )[^\n]*\n)*)", consoles, re.MULTILINE
    )


def run(page: str, *, without: str = "", **names: Any) -> dict[str, Any]:
    """Execute the page's Python, one block after another, and return the names that it leaves.

    What imports the package `without`, or one that is not installed here, is compiled only.
    """
    names["__name__"] = page
    for block in blocks(page, "python"):
        code = compile(block, page, "exec", dont_inherit=True)
        if all(package != without and find_spec(package) for package in _imports(block)):
            exec(code, names)
    return names


def _imports(block: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(block)))
    plain = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    of = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | of}
