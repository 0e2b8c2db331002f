"""The lists of requirements agree with the lock, the library's bounds, a user's wishes."""

import re
import subprocess
import sys
import tomllib
from itertools import chain

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.serving import ROOT

# Not requirements-bench.txt: what it compares with takes an older redis.
LISTS = [f"requirements{kind}.txt" for kind in ("", "-celery", "-sqs", "-dev")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    """Return the versions that this file pins, by their packages' names."""
    found = re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)", (ROOT / name).read_text(), re.M)
    return {canonicalize_name(package): version for package, version in found}


LOCK = pins("requirements.lock")


@pytest.mark.parametrize("name", LISTS)
def test_every_pin_is_locked(name: str) -> None:
    assert pins(name)
    assert pins(name).items() <= LOCK.items()


@pytest.mark.parametrize("name", LISTS)
def test_every_pin_has_its_reason(name: str) -> None:
    assert not re.findall(r"^[^#\n]+==[^#\n]*$", (ROOT / name).read_text(), re.M)


@pytest.mark.parametrize(
    "name", [*LISTS, "requirements.lock", "requirements-bench.txt", "requirements-bench-arq.txt"]
)
def test_no_list_names_a_registry(name: str) -> None:
    text = re.sub("#.*", "", (ROOT / name).read_text())
    assert not re.search("://|index-url|find-links", text)


def test_the_services_list_meets_users_expectations() -> None:
    expected = {"starlette", "uvicorn", "anyio", "apache-skywalking", "httpx", "pytest"}
    assert expected <= pins("requirements.txt").keys()


def test_the_services_list_has_no_tools() -> None:
    assert not {"mypy", "ruff", "aiosmtpd", "moto", "uv"} & pins("requirements.txt").keys()


@pytest.mark.parametrize(
    "wanted",
    [*chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())],
)
def test_the_library_takes_what_is_locked(wanted: str) -> None:
    requirement = Requirement(wanted)
    assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)])
    assert not requirement.specifier.contains("0.0.1")


def test_bare_python_names_the_right_one() -> None:
    without = [sys.executable, "-S", "tasks.py"]  # -S: no site-packages
    answer = subprocess.run(without, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1
    [line] = answer.stderr.splitlines()
    assert ".venv/bin/python" in line
