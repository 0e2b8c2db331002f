"""docs/growing.md is true: its router runs on both databases, and its sums follow its figures."""

import asyncio
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from afterwards import registry
from benchmarks import sums
from tests import pages, serving
from tests.lifespan import living

PAGE = "docs/growing.md"
NAMES = [f"user-{number}" for number in range(40)]
FILES = ("first.db", "second.db")


@pytest.fixture
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_by_name", {**registry._by_name})
    return tmp_path


def _states(directory: Path) -> list[set[tuple[str, str]]]:
    """Tell what each of the databases has: ids and states."""
    query = "SELECT id, state FROM tasks"
    urls = [f"sqlite:///{directory / name}" for name in FILES]
    return [{(row.id, row.state) for row in serving.sql(url, query)} for url in urls]


def _all_succeeded(directory: Path, ids: list[set[str]]) -> bool:
    return _states(directory) == [{(id, "succeeded") for id in own} for own in ids]


def _by_shard(answers: list[httpx.Response]) -> list[set[str]]:
    """Sort the ids by the number of the shard in the paths that the router told."""
    assert {answer.status_code for answer in answers} == {202}
    told = [answer.headers["Location"].split("/")[2:] for answer in answers]
    return [{id for shard, _, id in told if shard == number} for number in ("0", "1")]


@pytest.mark.anyio
async def test_the_router_runs_on_both(in_an_empty_directory: Path) -> None:
    names = pages.run(PAGE)
    transport = httpx.ASGITransport(names["app"])
    async with (
        living(names["app"]),
        httpx.AsyncClient(transport=transport, base_url="http://x") as client,
    ):
        answers = [await client.post(f"/users/{name}") for name in NAMES]
        pages_told = [await client.get(f"{each.headers['Location']}?wait=20") for each in answers]
    ids = _by_shard(answers)
    assert {page.json()["state"] for page in pages_told} == {"succeeded"}
    assert all(ids)
    assert await asyncio.to_thread(_all_succeeded, in_an_empty_directory, ids)
    again = [names["shard_of"](name) for name in NAMES]
    assert again == [int(each.headers["Location"].split("/")[2]) for each in answers]


@pytest.fixture
def sharded(tmp_path: Path) -> Iterator[Callable[[str], serving.Server]]:
    """The page's module in processes of its own, with tasks that take as long as they are told."""
    [code] = pages.blocks(PAGE, "python")
    work = "...  # send the mail"
    assert work in code
    waiting = code.replace(work, 'await asyncio.sleep(float(os.environ["MAIL_SECONDS"]))')
    (tmp_path / "sharded.py").write_text(waiting)
    urls = " ".join(f"sqlite:///{tmp_path / name}" for name in FILES)
    running = []

    def start(seconds: str) -> serving.Server:
        own = {"SHARDS": urls, "MAIL_SECONDS": seconds}
        own["PYTHONPATH"] = f"{serving.ROOT}:{tmp_path}"
        running.append(serving.start(tmp_path, app="sharded:app", **own))
        return running[-1]

    yield start
    for server in running:
        server.kill()


def test_kill_9_loses_nothing_of_either(
    sharded: Callable[[str], serving.Server], tmp_path: Path
) -> None:
    hanging = sharded("600")
    with httpx.Client(base_url=hanging.url, timeout=30) as client:
        ids = _by_shard([client.post(f"/users/{name}") for name in NAMES])
    running = [{(id, "running") for id in own} for own in ids]
    serving.until(lambda: _states(tmp_path) == running, 30)
    surviving = sharded("0")
    surviving.wait_for_log("startup complete")
    hanging.kill()
    serving.until(partial(_all_succeeded, tmp_path, ids), 60)


def test_one_database_down_refuses_its_keys(
    sharded: Callable[[str], serving.Server], tmp_path: Path
) -> None:
    (tmp_path / FILES[1]).mkdir()  # no file can be opened there
    server = sharded("0")
    with httpx.Client(base_url=server.url, timeout=60) as client:
        answers = [client.post(f"/users/{name}").status_code for name in NAMES[:8]]
    assert set(answers) == {202, 503}


def test_the_sums_follow_the_figures() -> None:
    text = pages.text_of(PAGE)
    assert sums.summed(text) == text


def test_other_figures_give_other_sums() -> None:
    text = re.sub(r"^(\| S \|.*\|) [\d,-]+ \|$", r"\1 10,001 |", pages.text_of(PAGE), flags=re.M)
    summed = sums.summed(text)
    assert "R/S, 0, R/S | 1, 0, 1 | 10, 0, 10 |" in summed
    unknown = re.sub(r"^(\| S \|.*\|) [\d,-]+ \|$", r"\1 - |", text, flags=re.M)
    assert "R/S, 0, R/S | -, 0, - | -, 0, - |" in sums.summed(unknown)
