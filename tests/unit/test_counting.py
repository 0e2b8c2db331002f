"""What the benchmarks count: every run, in whatever process and thread it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import counting
from tests.serving import ROOT

SCRIPT = """
import os, threading
from benchmarks import counting

def count():
    for _ in range(1000):
        counting.one()

child = os.fork()
threads = [threading.Thread(target=count) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize(("variables", "count"), [({}, 0), ({counting.VARIABLE: "runs"}, 8000)])
def test_every_run_is_counted(tmp_path: Path, variables: dict[str, str], count: int) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environ, check=True)
    assert counting.total(runs) == count
