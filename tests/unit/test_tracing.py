"""Tracing costs nothing while it is off; what it does while it is on is in tests/process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LIFE = """
import asyncio, sys, httpx, asgi_app, tracing
from tests.lifespan import living
async def main():
    transport = httpx.ASGITransport(asgi_app.app)
    async with living(asgi_app.app):
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.post("/action")).status_code == 202
            assert tracing.trace_id() == ""
            print(tracing.status(), *sorted({"skywalking", "grpc"} & set(sys.modules)))
asyncio.run(main())
"""


@pytest.mark.parametrize(("address", "told"), [("", "off"), ("127.0.0.1:1", "on grpc skywalking")])
def test_only_a_collector_imports_the_agent(tmp_path: Path, address: str, told: str) -> None:
    variables = {
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": address,
        "DATABASE_URL": f"sqlite:///{tmp_path}/service.db",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", LIFE],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert told in done.stdout.splitlines(), done.stderr
