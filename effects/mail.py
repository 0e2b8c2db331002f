"""One mail, over SMTP or a provider's HTTP API."""

import asyncio
from typing import Any, Final
from urllib.parse import quote

import httpx

from effects import answers, tls
from effects.letter import Mail, MailError, MailRefused, MailUnreachable, excerpt, welcome
from effects.smtp import send_smtp

__all__ = [
    "Mail",
    "MailError",
    "MailRefused",
    "MailUnreachable",
    "send_mailgun",
    "send_sendgrid",
    "send_smtp",
    "welcome",
]

# Answers about the mail; the rest is about the account, the limits or the day, and may change.
ABOUT_THE_MAIL: Final = {400, 406, 413, 415, 422}


async def send_sendgrid(
    mail: Mail,
    api_key: str,
    *,
    base_url: str = "https://api.sendgrid.com",
    timeout: float,  # one number for everything, which httpx has per read and write
    message_id: str | None = None,
) -> None:
    """Send through SendGrid, within `timeout` seconds.

    Accounts in the EU use https://api.eu.sendgrid.com. Raises MailRefused, MailUnreachable.
    https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
    """
    sender = {"email": mail.sender_address}
    sender |= {"name": mail.sender_name} if mail.sender_name else {}
    body = {
        "personalizations": [{"to": [{"email": mail.to}]}],
        "from": sender,
        "subject": mail.subject,
        "content": [
            {"type": "text/plain", "value": mail.text},
            {"type": "text/html", "value": mail.html},
        ],
    } | ({"headers": {"Message-ID": message_id}} if message_id else {})
    headers = {"Authorization": f"Bearer {api_key}"}
    await _deliver(f"{base_url}/v3/mail/send", api_key, timeout, json=body, headers=headers)


async def send_mailgun(
    mail: Mail,
    api_key: str,
    domain: str,
    *,
    base_url: str = "https://api.mailgun.net",
    timeout: float,  # one number for everything, which httpx has per read and write
    message_id: str | None = None,
) -> None:
    """Send through Mailgun, within `timeout` seconds.

    Domains in the EU use https://api.eu.mailgun.net. Raises MailRefused, MailUnreachable.
    https://documentation.mailgun.com/docs/mailgun/api-reference
    """
    form = {
        "from": mail.sender,
        "to": mail.to,
        "subject": mail.subject,
        "text": mail.text,
        "html": mail.html,
    }
    form |= {"h:Message-Id": message_id} if message_id else {}
    url = f"{base_url}/v3/{quote(domain, safe='')}/messages"
    await _deliver(url, api_key, timeout, data=form, auth=httpx.BasicAuth("api", api_key))


async def _deliver(url: str, api_key: str, seconds: float, **request: Any) -> None:
    client = httpx.AsyncClient(
        verify=tls.verifying(), trust_env=False, timeout=seconds, headers=answers.AS_IT_IS
    )
    try:
        async with (
            asyncio.timeout(seconds),
            client,
            client.stream("POST", url, **request) as response,
        ):
            answer = await answers.start_of(response)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ExceptionGroup) as error:
        # The error's own text may hold the URL, or the key as an illegal header.
        raise MailUnreachable(
            f"the mail provider gave no answer ({type(error).__name__})"
        ) from None
    if not response.is_success:
        status, text = response.status_code, answer.decode(errors="replace")
        raise MailRefused(status, excerpt(text, api_key, url), permanent=status in ABOUT_THE_MAIL)
