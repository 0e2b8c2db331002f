"""Tasks of `tasks.py`, tested with the kit as their writer would: hours of retries, no time."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

import tasks
from afterwards.model import Outcome
from afterwards.retries import GiveUp
from afterwards.testing import TaskKit
from asgi_app import afterwards, app
from effects import images
from settings import settings
from tests.effects.loopback import Asked, in_turn, reply, serving, silence

pytestmark = pytest.mark.anyio


@pytest.fixture
async def kit(database_url: str) -> AsyncIterator[TaskKit]:
    async with TaskKit(database_url) as kit:
        yield kit


async def test_a_busy_discord_sets_the_retry(kit: TaskKit, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = reply(
        429,
        json.dumps({"message": "slow down", "retry_after": 1800.5}).encode(),
        retry_after="1801",
    )
    async with serving(in_turn(busy, reply(204))) as webhook:
        monkeypatch.setattr(settings, "discord_webhook_url", f"{webhook.url}/api/webhooks/1/secret")
        id = await kit.enqueue(tasks.announce_on_discord, "ada")
        await kit.drain()
        assert (await kit.row(id)).state == "retrying"
        await kit.advance(1800)
        assert await kit.drain() == []
        await kit.advance(10)
        [attempt] = await kit.drain()
        assert (attempt.number, attempt.outcome) == (2, Outcome.SUCCEEDED)
        assert [asked.json["content"] for asked in webhook.asked] == ["ada has joined."] * 2


async def test_mail_is_dead_after_long_outage(
    kit: TaskKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "sendgrid_api_key", "key")
    async with serving(reply(503)) as service:
        monkeypatch.setattr(settings, "sendgrid_url", service.url)
        id, began = await kit.enqueue(tasks.send_welcome_mail, "ada@example.com", "ada"), kit.now
        while (await kit.row(id)).state != "dead":
            await kit.set_clock(await kit.due_at(id) or kit.now)
            assert len(await kit.drain()) == 1
        assert len(service.asked) == 5
        assert kit.now - began == timedelta(seconds=1 + 2 + 4 + 8)
        assert (await kit.row(id)).error_kind == "MailRefused"


async def test_a_refused_mail_is_not_retried(kit: TaskKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "sendgrid_api_key", "key")
    async with serving(reply(400, b"{}")) as service:
        monkeypatch.setattr(settings, "sendgrid_url", service.url)
        id = await kit.enqueue(tasks.send_welcome_mail, "ada@example.com", "ada")
        [attempt] = await kit.drain()
        assert attempt.outcome is Outcome.FAILED
        row = await kit.row(id)
        assert (row.state, row.attempt, row.error_kind) == ("dead", 1, "GiveUp")


async def test_attached_tasks_run_on_demand(kit: TaskKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "notify_seconds", 0)
    kit.put_on(afterwards)
    user = {"email": "ada@example.com", "username": "ada"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        added = await client.post("/users/with-notifications/", json=user)
        several = await client.post("/complex-action")
        ids = [id for answer in (added, several) for id in answer.headers["task-id"].split(", ")]
        assert [(await client.get(f"/tasks/{id}")).json()["state"] for id in ids] == ["queued"] * 5
        attempts = await kit.drain()
        assert {attempt.task.id for attempt in attempts} == {*ids}
        assert {attempt.outcome for attempt in attempts} == {Outcome.SUCCEEDED}
        assert [(await client.get(f"/tasks/{id}")).json()["state"] for id in ids] == [
            "succeeded"
        ] * 5


async def test_an_invalid_picture_is_given_up(
    kit: TaskKit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "images_dir", tmp_path)
    monkeypatch.setattr(settings, "allow_private_addresses", True)
    async with (
        serving(reply(200, b"no picture", content_type="image/png")) as site,
        asyncio.timeout(10),
    ):
        id = await kit.enqueue(tasks.process_image, "task-1", f"{site.url}/a.png", ["resize"])
        await kit.drain()
    assert (await kit.row(id)).error_kind == "GiveUp"
    assert images.find(tmp_path, "task-1") is None


async def test_only_two_pictures_fetch_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "images_dir", tmp_path)
    monkeypatch.setattr(settings, "allow_private_addresses", True)
    under_way: set[str] = set()
    most = 0

    async def answer(asked: Asked) -> AsyncIterator[bytes]:
        nonlocal most
        under_way.add(asked.path)
        most = max(most, len(under_way))
        await asyncio.sleep(0.1)
        under_way.remove(asked.path)
        yield reply(200, b"no picture")

    async with serving(answer) as site:
        orders = (tasks.process_image(f"task-{n}", f"{site.url}/{n}", ["resize"]) for n in range(6))
        results = await asyncio.gather(*orders, return_exceptions=True)
    assert [type(result) for result in results] == [GiveUp] * 6
    assert most == 2


async def test_an_order_stops_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "allow_private_addresses", True)
    monkeypatch.setattr(settings, "request_timeout", 0.1)
    async with serving(lambda _: silence()) as site:
        with pytest.raises(TimeoutError):
            await tasks.process_image("task-1", site.url, ["resize"])
    assert tasks.pictures_at_once.available_tokens == 2
