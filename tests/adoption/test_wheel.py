"""The wheel has the library alone, and an empty environment has all that it takes."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.adoption.conftest import Environment, clean_environ
from tests.serving import ROOT

# What the extras bring, and what only the service has.
EXTRAS = [
    *("asyncpg", "celery", "kombu", "redis", "boto3"),
    *("skywalking", "grpc", "httpx", "uvicorn", "jinja2"),
]


def loaded(python: str | Path, statement: str, directory: Path) -> list[str]:
    """Return which of the extras' packages this interpreter has loaded after the statement."""
    code = f"{statement}; import json, sys; print(json.dumps([*{{*{EXTRAS}}} & {{*sys.modules}}]))"
    command = [str(python), "-c", code]
    answer = subprocess.run(
        command, cwd=directory, env=clean_environ(), capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    found: list[str] = json.loads(answer.stdout)
    return found


def test_the_wheel_has_the_library_alone(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"afterwards"}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "afterwards").rglob("*.py")}
    assert {name for name in names if "dist-info" not in name} >= {*ours, "afterwards/py.typed"}


def test_an_empty_environment_imports_it(environment: Environment, tmp_path: Path) -> None:
    assert not loaded(environment("bare") / "python", "import afterwards", tmp_path)


def test_importing_it_loads_no_extra() -> None:
    assert not loaded(sys.executable, "import afterwards", ROOT)


def test_asking_for_postgres_loads_its_driver() -> None:
    statement = "from afterwards.store.database import Database; Database('postgres://host/name')"
    assert loaded(sys.executable, statement, ROOT) == ["asyncpg"]


def test_postgres_without_driver_says_so(environment: Environment, tmp_path: Path) -> None:
    code = "from afterwards.store.database import Database; Database('postgres://host/name')"
    command = [str(environment("bare") / "python"), "-c", code]
    answer = subprocess.run(
        command, cwd=tmp_path, env=clean_environ(), capture_output=True, text=True, timeout=60
    )
    assert answer.stderr.splitlines()[-1].endswith("pip install 'afterwards[postgres]'")
