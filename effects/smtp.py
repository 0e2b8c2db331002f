"""One mail over SMTP, with TLS wherever a password is at stake."""

import asyncio
import contextlib
import email.policy
import ssl
from collections.abc import AsyncIterator, Iterator
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import aiosmtplib

from effects.letter import Mail, MailRefused, MailUnreachable, excerpt


async def send_smtp(
    mail: Mail,
    url: str,
    *,
    timeout: float,  # one number for the whole conversation, which aiosmtplib has per command
    require_tls: bool = True,
    message_id: str | None = None,
    tls_context: ssl.SSLContext | None = None,
) -> None:
    """Send over `smtps://` or `smtp://`, within `timeout` seconds.

    `smtps://` is TLS on port 465, `smtp://` STARTTLS, on port 587 with credentials, 25 without:
    submission is for those who log in (RFC 6409). STARTTLS must be offered, unless the host is this
    machine: whoever stands between could take the offer away. Without `require_tls` mail goes in
    the clear where it is not offered, but no password. `user:password@` is percent-decoded.
    `message_id`, with its angle brackets, lets a repeat be recognised. Certificates are verified,
    against `tls_context` if given. Raises MailRefused, MailUnreachable.
    """
    server = _server(url, require_tls=require_tls)
    client = aiosmtplib.SMTP(**server._asdict(), tls_context=tls_context, timeout=timeout)
    message = _message(mail, message_id)
    with _smtp_errors(server):
        async with asyncio.timeout(timeout), _connected(client):
            await client.send_message(message, sender=mail.sender_address, recipients=[mail.to])


class _Server(NamedTuple):
    """What a URL says, in aiosmtplib's words."""

    hostname: str
    port: int
    username: bytes | None
    password: bytes | None
    use_tls: bool
    start_tls: bool | None  # None: where it is offered


def _server(url: str, *, require_tls: bool) -> _Server:
    try:
        parts = urlsplit(url)
        return _parsed(parts, parts.hostname or "", parts.port, require_tls)
    except ValueError:  # whose text may hold a piece of the password
        raise MailUnreachable("the mail server's URL cannot be read") from None


def _parsed(parts: SplitResult, host: str, port: int | None, require_tls: bool) -> _Server:
    if parts.scheme not in ("smtp", "smtps") or not host:
        raise ValueError(parts.scheme)
    use_tls = parts.scheme == "smtps"
    login = None if parts.username is None else unquote(parts.username).encode()
    needs_starttls = not use_tls and (require_tls or login) and not _is_this_machine(host)
    return _Server(
        hostname=host,
        port=port or (465 if use_tls else 587 if login else 25),
        username=login,
        password=None if login is None else unquote(parts.password or "").encode(),
        use_tls=use_tls,
        start_tls=True if needs_starttls else None,
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _message(mail: Mail, message_id: str | None) -> EmailMessage:
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"] = _address(mail.sender_name, mail.sender_address)
    message["To"] = _address("", mail.to)
    message["Subject"] = mail.subject
    message["Date"] = formatdate()
    # With a domain given, since make_msgid would look this machine's name up.
    message["Message-ID"] = message_id or make_msgid(domain=mail.sender_address.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation answers, please
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


def _address(name: str, address: str) -> Address:
    # In parts: given whole, it would have to be ASCII.
    local, _, domain = address.rpartition("@")
    return Address(name, local, domain)


@contextlib.asynccontextmanager
async def _connected(client: aiosmtplib.SMTP) -> AsyncIterator[None]:
    try:
        await client.connect()
        yield
        # The mail is accepted: a farewell that fails must not have it sent again.
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            await client.quit(timeout=1)
    finally:
        client.close()


@contextlib.contextmanager
def _smtp_errors(server: _Server) -> Iterator[None]:
    password = (server.password or b"").decode()
    try:
        yield
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _refused(error.recipients[0], password) from None
    except aiosmtplib.SMTPResponseException as error:
        raise _refused(error, password) from None
    except OSError as error:  # disconnected, timed out, a certificate that does not verify
        reason = excerpt(str(error), password) or type(error).__name__
        raise MailUnreachable(f"{server.hostname}:{server.port} gave no answer: {reason}") from None
    except (aiosmtplib.SMTPException, ValueError) as error:
        # It has no SMTPUTF8, and the address needs it.
        permanent = isinstance(error, aiosmtplib.SMTPNotSupported)
        raise MailRefused(None, excerpt(str(error), password), permanent=permanent) from None


def _refused(error: aiosmtplib.SMTPResponseException, password: str) -> MailRefused:
    # RFC 5321: 55x is about the mailbox or the mail, other 5xx about greeting, login, commands.
    return MailRefused(error.code, excerpt(error.message, password), permanent=error.code >= 550)
