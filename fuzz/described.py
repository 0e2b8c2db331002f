"""`python -m fuzz.described`: send what schemathesis makes of the service's own OpenAPI document.

It ends with 1 if an answer is not as it is described, if what the document forbids was accepted, or
if the process died or logged an error that is no task's.
"""

import argparse
import hashlib
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz import OTHERS_ERROR, QUICK
from fuzz.hostile import TOKEN
from tests import serving
from tests.serving import BIN, Server

# What the document cannot say: which addresses are e-mail's, which keys were used before; and that
# a deleted task is a cancelled one, which stays to be seen.
EXCLUDED = ("positive_data_acceptance", "use_after_free")
GRACE_SECONDS = 120.0  # schemathesis ends the test that it is at, and shrinks what it has found


def main() -> int:
    """Run, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.described")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    another = "another application, to see what is said of it"
    parser.add_argument("--app", default="asgi_app:app", help=another)
    asked = parser.parse_args()
    print(f"schemathesis, seed {asked.seed}, {asked.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        variables = {"ADMIN_TOKEN": TOKEN, "STALLS": str(directory / "stalls"), **QUICK}
        variables["JWT_SECRET"] = secrets.token_hex()  # so that there are users' tokens, too
        server = serving.start(directory, app=asked.app, args=["--no-access-log"], **variables)
        try:
            failed = _sent(server, asked.seed, asked.minutes * 60, directory)
            return failed or _judged(server)
        finally:
            server.kill()


def _sent(server: Server, seed: str, seconds: float, directory: Path) -> int:
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4])
    done = subprocess.run(
        [
            *(str(BIN / "schemathesis"), "run", f"{server.url}/openapi.json", "--no-color"),
            *("--seed", str(number), "--max-time", f"{max(1, round(seconds))}"),
            *("--exclude-checks", ",".join(EXCLUDED), "--generation-database", "none"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--warnings", "off"),
            *("--request-timeout", "40"),  # ?wait= holds an answer for 25 s
        ],
        cwd=directory,  # where it leaves what it likes
        timeout=seconds + GRACE_SECONDS,
    )
    return done.returncode


def _judged(server: Server) -> int:
    if (code := server.process.poll()) is not None:
        print(f"the process ended with {code}")
        return 1
    if error := re.search(OTHERS_ERROR, server.log(), re.MULTILINE):
        print(server.log()[error.start() :][:5000])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
