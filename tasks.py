"""What happens after the answer: one plain function per task.

`python tasks.py` shows the idea without a server.
"""

import asyncio
import logging
import reprlib
import time
from collections.abc import Sequence
from typing import Any

try:
    import anyio
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    raise SystemExit(f"{error}: use .venv/bin/python, into which `make run` puts it") from None

from afterwards import GiveUp, RetryAfter, current_task_id, task
from afterwards.skywalking import calling_strangers
from effects import discord, images, mail
from settings import settings

log = logging.getLogger("tasks")

# A picture's bytes take 10 MB here and its editor may take 200 MB: no more than two are in memory.
pictures_at_once = anyio.CapacityLimiter(2)


@task()
async def background_sleep_task() -> None:
    """Sleep for `SLEEP_SECONDS`."""
    log.info("sleeping for %g s", settings.sleep_seconds)
    began = time.perf_counter()
    await asyncio.sleep(settings.sleep_seconds)
    log.info("slept for %.2f s", time.perf_counter() - began)


@task()
async def send_notification() -> None:
    """Stand in for a notification that takes `NOTIFY_SECONDS` to send."""
    await asyncio.sleep(settings.notify_seconds)
    log.info("notification sent")


@task()
async def work() -> None:
    """Stand in for work that takes `WORK_SECONDS`."""
    await asyncio.sleep(settings.work_seconds)


@task()
async def log_action(action: str) -> None:
    """Write the action to the log."""
    log.info("action: %s", action)


@task()
def write_audit_record(action: str) -> None:
    """Write the action to the log from a thread, as any plain function runs."""
    log.info("audit: %s", action)


@task()
async def process_item(item: dict[str, Any], owner: str = "") -> None:
    """Write to the log which item this is and how many fields it has.

    The `owner` is the user whose task it is: by it the task is found when the user is erased.
    """
    # A stranger names the fields and chooses the id: neither is repeated at length.
    log.info("processed item %s with %d fields", reprlib.repr(item["id"]), len(item))


@task(secret={"email"})
async def send_welcome_mail(email: str, username: str) -> None:
    """Welcome a new user by mail, over the first service configured; without one, log the mail."""
    try:
        await _send(mail.welcome(username, email, settings.mail_from))
    except mail.MailRefused as refusal:
        if refusal.permanent:
            raise GiveUp(f"the mail was refused: {refusal}") from None
        raise


async def _send(letter: mail.Mail) -> None:
    timeout = settings.request_timeout
    # The task's id, so that a mail which arrives twice can be recognised.
    message_id = f"<{current_task_id.get()}@{letter.sender_address.rpartition('@')[2]}>"
    if settings.smtp_url:
        await mail.send_smtp(
            letter,
            settings.smtp_url,
            timeout=timeout,
            require_tls=settings.smtp_require_tls,
            message_id=message_id,
        )
    elif key := settings.sendgrid_api_key:
        await mail.send_sendgrid(
            letter, key, base_url=settings.sendgrid_url, timeout=timeout, message_id=message_id
        )
    elif (key := settings.mailgun_api_key) and (domain := settings.mailgun_domain):
        url = settings.mailgun_url
        await mail.send_mailgun(
            letter, key, domain, base_url=url, timeout=timeout, message_id=message_id
        )
    else:
        log.info(
            "no mail service is set up; mail to %s, %s: %r", letter.to, letter.subject, letter.text
        )
        return
    log.info("mail sent to %s", letter.to)


@task(secret={"email"})
async def announce_on_discord(username: str, email: str = "") -> None:
    """Tell Discord of a new user; without a webhook the message is logged.

    The address is not told: the task is found by it when the user is erased.
    """
    message = f"{discord.harmless(username)} has joined."
    if settings.discord_webhook_url is None:
        log.info("no Discord webhook is set up; message: %s", message)
        return
    try:
        await discord.post(settings.discord_webhook_url, message, timeout=settings.request_timeout)
    except discord.DiscordRateLimited as limit:
        raise RetryAfter(limit.retry_after, str(limit)) from None
    log.info("message posted to Discord")


@task(timeout=1800)  # most of which may be the wait for its turn; REQUEST_TIMEOUT begins then
async def process_image(
    job_id: str, image_url: str, operations: Sequence[images.Operation], owner: str = ""
) -> None:
    """Fetch a picture, apply the operations in order, keep the result under the job's id.

    The `owner` is the user whose picture it is: by it the task is found when the user is erased.
    """
    try:
        async with pictures_at_once, asyncio.timeout(settings.request_timeout):
            with calling_strangers("pictures"):
                data = await images.fetch(image_url, allow_private=settings.allow_private_addresses)
            result, extension = await images.process(data, operations)
            await anyio.to_thread.run_sync(
                images.keep, settings.images_dir, job_id, result, extension
            )
    except (images.ImageRefused, images.ImageTooLarge, images.NotAnImage) as refusal:
        raise GiveUp(str(refusal)) from None
    log.info("image of %d bytes became %d bytes of %s", len(data), len(result), extension)


async def demonstrate() -> None:
    """Schedule a task, say at once that it was scheduled, and let it finish."""
    began = time.perf_counter()
    scheduled = asyncio.create_task(background_sleep_task())
    log.info(
        "background_sleep_task is scheduled; this line came after %.3f s",
        time.perf_counter() - began,
    )
    await scheduled
    log.info("background_sleep_task has finished after %.1f s", time.perf_counter() - began)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asyncio.run(demonstrate())
