"""The wheel, and environments that have it beside one generation of FastAPI, or beside nothing."""

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving import ROOT

Environment = Callable[[str], Path]

# The older generation is that of the lower bounds in pyproject.toml.
BESIDE = {
    "bare": [],
    "2025": [
        *("starlette==0.46.2", "anyio==4.4.0", "pydantic==2.7.0", "aiosqlite==0.20.0"),
        *(
            "itsdangerous==2.2.0",
            "sqlalchemy==2.0.38",
            "fastapi==0.115.12",
            "uvicorn==0.34.0",
            "httpx==0.28.1",
        ),
    ],
    "2026": ["starlette==1.10.0", "fastapi==0.165.0", "uvicorn==0.54.0", "httpx==0.28.1"],
}


def clean_environ() -> dict[str, str]:
    """Return this environment without what would lead an interpreter back to the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*command: str | Path, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; the caller looks whether it went well."""
    return subprocess.run(
        list(map(str, command)),
        cwd=directory,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def pip(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run pip as everybody does, on its cache and the index."""
    return run(sys.executable, "-m", "pip", *args)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel; skip where not even what builds it can be had."""
    directory = tmp_path_factory.mktemp("wheel")
    asked = pip("download", "--quiet", "--no-deps", "--dest", directory / "backend", "hatchling")
    if asked.returncode:
        pytest.skip(f"pip reaches no package index: {asked.stderr.strip().splitlines()[-1]}")
    built = pip("wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT)
    assert built.returncode == 0, built.stderr
    [path] = directory.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Make the environment when it is first asked for; return its folder of programs."""
    made: dict[str, Path] = {}

    def programs(name: str) -> Path:
        if name not in made:
            directory = tmp_path_factory.mktemp(name)
            venv.create(directory, symlinks=True)
            python = directory / "bin" / "python"
            installed = pip(
                "--python", python, "install", "--quiet", "--no-compile", wheel, *BESIDE[name]
            )
            assert installed.returncode == 0, installed.stderr
            made[name] = python.parent
        return made[name]

    return programs
