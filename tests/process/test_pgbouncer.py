"""Behind a real PgBouncer, which pools transactions, nothing fails and nothing runs twice."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from afterwards.store.database import Database
from tests.bad_days import BAD_DAYS, Serve, all_succeeded
from tests.brokers import free_port
from tests.serving import Load, sql, until

PGBOUNCER = "/usr/sbin/pgbouncer"  # Debian's package

pytestmark = pytest.mark.usefixtures("anyio_backend")  # for the fixture `database_url`, a coroutine


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The database's URL behind a PgBouncer that has fewer connections than it is asked for."""
    if not Path(PGBOUNCER).exists():
        pytest.skip("Debian's package pgbouncer is not installed")
    behind = make_url(database_url)
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to any other user
        config = Path(directory) / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = host={behind.host} port={behind.port or 5432} user={behind.username}"
            + (f" password={behind.password}" if behind.password else "")
            + f"\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
        )
        config.chmod(0o644)
        Path(directory).chmod(0o755)
        user = "nobody" if os.getuid() == 0 else None  # it refuses to be root's
        log = Path(directory) / "log"
        with log.open("wb") as out:
            pooler = subprocess.Popen(
                [PGBOUNCER, str(config)], user=user, cwd="/", stdout=out, stderr=out
            )
        until(lambda: "process up" in log.read_text(), 10)
        yield behind.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        pooler.terminate()
        pooler.wait(10)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_behind_a_transaction_pooler_nothing_fails(
    serve: Serve, database_url: str, pooled_url: str
) -> None:
    servers = [serve(app=BAD_DAYS, DATABASE_URL=pooled_url) for _ in range(2)]
    assert [httpx.get(f"{each.url}/health").status_code for each in servers] == [200, 200]
    loads = [Load(each.url, "/do/keeps_a_diary", {"seconds": 0.01}) for each in servers]
    until(lambda: all(len(load.accepted) > 150 for load in loads), 60)
    for number, each in enumerate(servers):
        user = {"email": f"a{number}@example.com", "username": f"a{number}"}
        assert (
            httpx.post(
                f"{each.url}/users/", json=user, headers={"Idempotency-Key": each.url}
            ).status_code
            == 201
        )
    accepted = [id for load in loads for id in load.stop()]
    all_succeeded(database_url, accepted, 60)
    assert {status for load in loads for status in load.statuses} == {202}
    assert sql(database_url, "SELECT id FROM tasks WHERE attempt > 1 OR crashes > 0") == []
    for each in servers:
        assert each.stop() < 20
        assert "Traceback" not in each.log()
        assert "unavailable" not in each.log()


@pytest.mark.anyio
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_without_a_pooler_statements_are_prepared(database_url: str, pooled_url: str) -> None:
    assert await prepared(database_url) > 0
    assert await prepared(pooled_url) == 0


async def prepared(url: str) -> int:
    database = Database(url)
    async with database.reading() as connection:
        count: int = (
            await connection.execute(text("SELECT count(*) FROM pg_prepared_statements"))
        ).scalar_one()
    await database.close()
    return count
