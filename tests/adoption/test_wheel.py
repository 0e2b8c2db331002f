"""The wheel has the library alone, and an empty environment has all that it takes."""

import json
import sys
import zipfile
from pathlib import Path

from tests.adoption.conftest import Environment, run
from tests.serving import ROOT

# What the extras bring, and what only the service has.
EXTRAS = {
    *("asyncpg", "celery", "kombu", "redis", "boto3"),
    *("skywalking", "grpc", "httpx", "uvicorn", "jinja2"),
}
POSTGRES = "import afterwards.store.database as store; store.Database('postgres://host/name')"
TASK = """
import asyncio
from afterwards import Afterwards, task

done = asyncio.Event()

@task()
async def finish() -> None:
    done.set()

async def main() -> None:
    afterwards = Afterwards("sqlite:///tasks.db")
    await afterwards.start()
    await afterwards.enqueue(finish)
    await asyncio.wait_for(done.wait(), 20)
    await afterwards.stop()

asyncio.run(main())
print("done")
"""


def loaded(python: str | Path, statement: str, directory: Path) -> list[str]:
    """Return which of the extras' packages this interpreter has loaded after the statement."""
    code = f"{statement}; import json, sys; print(json.dumps([*sys.modules]))"
    answer = run(python, "-c", code, directory=directory)
    assert answer.returncode == 0, answer.stderr
    return sorted({*json.loads(answer.stdout)} & EXTRAS)


def test_the_wheel_has_the_library_alone(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"afterwards"}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "afterwards").rglob("*.py")}
    assert {*ours, "afterwards/py.typed"} <= names


def test_an_empty_environment_imports_it(environment: Environment, tmp_path: Path) -> None:
    assert loaded(environment("bare") / "python", "import afterwards", tmp_path) == []


def test_an_empty_environment_runs_tasks(environment: Environment, tmp_path: Path) -> None:
    answer = run(environment("bare") / "python", "-c", TASK, directory=tmp_path)
    assert answer.stdout == "done\n", answer.stderr


def test_importing_it_loads_no_extra() -> None:
    found = loaded(sys.executable, "import afterwards", ROOT)
    assert {*found} <= {"asyncpg"}  # by whose errors a store knows that a Postgres is away


def test_postgres_without_driver_says_so(environment: Environment, tmp_path: Path) -> None:
    answer = run(environment("bare") / "python", "-c", POSTGRES, directory=tmp_path)
    assert "pip install 'afterwards[postgres]'" in answer.stderr.splitlines()[-1]
