"""What mail says, and how it goes out: real SMTP servers, real HTTP ones."""

import asyncio
import base64
import contextlib
import email.message
import email.policy
import gzip
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from effects import mail
from tests.effects.conftest import Certificate
from tests.effects.loopback import (
    Answer,
    dripping,
    endless,
    in_turn,
    reply,
    serving,
    silence,
    unused_port,
)

pytest.importorskip("aiosmtpd", reason="pip install -r requirements-dev.txt")

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

pytestmark = pytest.mark.anyio

MAIL = mail.welcome("Ada", "ada@example.com", "Demo <no-reply@example.org>")
LOGIN = ("us@er", "p:a/s%s wörd")
ENCODED_LOGIN = "us%40er:p%3Aa%2Fs%25s%20w%C3%B6rd"
HEADERS = {
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
}


class Mailbox:
    """An SMTP server's handler that keeps the mail, or refuses its recipient or itself."""

    def __init__(self, rcpt: str = "", data: str = "", quit_: str = "") -> None:
        self.rcpt, self.data, self.quit = rcpt, data, quit_
        self.mails: list[email.message.EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_RCPT(
        self, _s: SMTP, _session: Session, envelope: Envelope, address: str, _o: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self.rcpt or "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        self.encrypted.append(session.ssl is not None)
        self.envelopes.append(envelope)
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.SMTPUTF8)
        assert isinstance(message, email.message.EmailMessage)
        self.mails.append(message)
        return self.data or "250 OK"

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:
        return self.quit or "221 Bye"

    def login(
        self, _s: SMTP, _session: Session, _e: Envelope, _mechanism: str, given: LoginPassword
    ) -> AuthResult:
        self.logins.append((given.login, given.password))
        right = tuple(part.encode() for part in LOGIN)
        return AuthResult(success=(given.login, given.password) == right, handled=False)


@contextlib.contextmanager
def smtp(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    controller = Controller(mailbox, hostname="127.0.0.1", port=unused_port(), **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@contextlib.asynccontextmanager
async def stripping_starttls(port: int) -> AsyncIterator[int]:
    """Stand between, and take the offer of STARTTLS out of what the server says."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if b"STARTTLS" not in line:
                    writer.write(line)

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(forward(reader, far_writer), forward(far_reader, writer))

    async with await asyncio.start_server(link, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


async def test_a_mail_arrives() -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        await mail.send_smtp(MAIL, f"smtp://127.0.0.1:{port}", timeout=5)
    (message,), (envelope,) = mailbox.mails, mailbox.envelopes
    assert set(message.keys()) - {"X-Peer", "X-MailFrom", "X-RcptTo"} == HEADERS
    assert (message["From"], message["To"]) == ("Demo <no-reply@example.org>", "ada@example.com")
    assert message["Subject"] == "Welcome, Ada!"
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@example.org", ["ada@example.com"])
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    assert text.get_content().splitlines() == MAIL.text.splitlines()
    assert html.get_content().splitlines() == MAIL.html.splitlines()


async def test_repeats_share_their_message_id() -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        for message_id in ("<task-1@example.org>", "<task-1@example.org>", None, None):
            await mail.send_smtp(MAIL, f"smtp://127.0.0.1:{port}", timeout=5, message_id=message_id)
    first, second, third, fourth = (message["Message-ID"] for message in mailbox.mails)
    assert first == second == "<task-1@example.org>"
    assert third != fourth
    assert third.endswith("@example.org>")


NAMES = [
    "Ada",
    "O'Brien",
    '"quoted"',
    "<script>alert(1)</script>",
    "😀" * 64,
    "名前",
    "a" * 64,
    "x, y; z: <a>",
    "Ada :) ... (aka Dr. L.)",
    "AC/DC",
    "@ada",
]
NASTY = [
    "=?utf-8?q?=0ABcc:_evil@example.net?=",
    "=?utf-8?q?=0D=0ABcc:_evil@example.net?= x =?utf-8?b?CkJjYzogZUBmLmc=?=",
    "==??utf-8?q?=0ABcc:_e?=",
    "=\u202e?utf-8?q?=0ABcc:_e?=",
    "= ?=?\ud800?=",
    "a\u2028Bcc: evil@example.net",
    "a\x85Bcc: evil@example.net",
    "\u202eevil\u2066",
    "\ud83d half",
    "\r\nBcc: evil@example.net",
]


@pytest.mark.parametrize("name", [*NAMES, *NASTY])
async def test_names_add_neither_header_nor_markup(name: str) -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        await mail.send_smtp(
            mail.welcome(name, "a@example.com", "no-reply@example.org"),
            f"smtp://127.0.0.1:{port}",
            timeout=5,
        )
    (message,) = mailbox.mails
    assert set(message.keys()) - {"X-Peer", "X-MailFrom", "X-RcptTo"} == HEADERS
    assert mailbox.envelopes[0].rcpt_tos == ["a@example.com"]
    assert len(message["Subject"].splitlines()) == 1
    body = message.get_body(("html",))
    assert body is not None
    assert body.get_content().count("<") == 6


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_user_names_are_shown_unchanged(name: str) -> None:
    assert (
        mail.welcome(name, "a@example.com", "no-reply@example.org").subject == f"Welcome, {name}!"
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("https://evil.example/win", "https: //evil. example/win"),
        ("http://2130706433/", "http: //2130706433/"),
        ("www.evil.example", "www. evil. example"),
        ("evil.com", "evil. com"),
        ("evil\u202e.\u2066com", "evil. com"),
        ("evil\u3002com", "evil\u3002 com"),
        ("evil\uff0ecom", "evil\uff0e com"),
        ("a@evil.com", "a @evil. com"),
        ("a\uff20evil.com", "a \uff20evil. com"),
        ("mailto:a@evil", "mailto: a @evil"),
        ("tel:+1900", "tel: +1900"),
        (r"\\evil\share", "\\ \\evil\\share"),
        ("J.R.R. Tolkien", "J. R. R. Tolkien"),
    ],
)
def test_links_in_names_are_plain_text(name: str, shown: str) -> None:
    letter = mail.welcome(name, "a@example.com", "no-reply@example.org")
    for part in (letter.subject, letter.text, letter.html):
        assert shown in part
        assert name not in part


def test_user_names_cannot_turn_lines_round() -> None:
    assert (
        mail.welcome("\u202eadA\u2067", "a@example.com", "n@example.org").subject == "Welcome, adA!"
    )


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "@example.com",
        "a@",
        "a@b.c, d@e.f",
        "a@b.c\r\nBcc: d@e.f",
        "<a@b.c>",
        "Ada <a@b.c>",
        "a b@c.d",
        '"a b"@c.d',
        "a@[127.0.0.1]",
        "=?utf-8?q?=0ABcc:?=@b.c",
        "a@=?utf-8?q?x?=",
        "a@b@c",
        "a@b.c\0",
        "a;b@c.d",
        "a@b\u2028c",
    ],
)
def test_invalid_addresses_get_no_mail(address: str) -> None:
    with pytest.raises(mail.MailRefused) as caught:
        mail.welcome("Ada", address, "no-reply@example.org")
    assert caught.value.permanent


@pytest.mark.parametrize(
    "subject", ["", "a\nBcc: b@c.d", "a\r", "=?utf-8?q?=0ABcc:_e?=", "a\u2028b"]
)
def test_invalid_subjects_get_no_mail(subject: str) -> None:
    with pytest.raises(mail.MailRefused):
        mail.Mail("no-reply@example.org", "a@example.com", subject, "", "")


def test_encoded_sender_names_get_no_mail() -> None:
    with pytest.raises(mail.MailRefused):
        mail.Mail("=?utf-8?q?=0ABcc:_e?= <no-reply@example.org>", "a@example.com", "s", "", "")


async def test_offered_starttls_is_taken(certificate: Certificate) -> None:
    mailbox = Mailbox()
    with smtp(mailbox, tls_context=certificate.server) as port:
        await mail.send_smtp(
            MAIL, f"smtp://localhost:{port}", timeout=5, tls_context=certificate.client
        )
    assert mailbox.encrypted == [True]


async def test_unoffered_starttls_is_not_taken(certificate: Certificate) -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        await mail.send_smtp(
            MAIL, f"smtp://localhost:{port}", timeout=5, tls_context=certificate.client
        )
    assert mailbox.encrypted == [False]


async def test_stripped_starttls_is_no_mail(certificate: Certificate) -> None:
    mailbox = Mailbox()
    with smtp(mailbox, tls_context=certificate.server) as port:
        async with stripping_starttls(port) as stripped:
            url = f"smtp://0.0.0.0:{stripped}"
            with pytest.raises(mail.MailRefused, match="STARTTLS") as caught:
                await mail.send_smtp(MAIL, url, timeout=5, tls_context=certificate.client)
            assert not mailbox.mails
            assert not caught.value.permanent
            await mail.send_smtp(MAIL, url, timeout=5, require_tls=False)
    assert mailbox.encrypted == [False]


async def test_required_tls_takes_offered_starttls(certificate: Certificate) -> None:
    mailbox = Mailbox()
    context = ssl.create_default_context(cadata=certificate.pem)
    context.check_hostname = False  # 0.0.0.0 stands for another machine
    with smtp(mailbox, tls_context=certificate.server) as port:
        await mail.send_smtp(MAIL, f"smtp://0.0.0.0:{port}", timeout=5, tls_context=context)
    assert mailbox.encrypted == [True]


async def test_smtps_begins_with_tls(certificate: Certificate) -> None:
    mailbox = Mailbox()
    with smtp(mailbox, ssl_context=certificate.server) as port:
        await mail.send_smtp(
            MAIL, f"smtps://localhost:{port}", timeout=5, tls_context=certificate.client
        )
    assert len(mailbox.mails) == 1
    with smtp(mailbox, ssl_context=certificate.server) as port, pytest.raises(mail.MailUnreachable):
        await mail.send_smtp(MAIL, f"smtp://localhost:{port}", timeout=0.3)


@pytest.mark.parametrize(("scheme", "option"), [("smtp", "tls_context"), ("smtps", "ssl_context")])
async def test_unvouched_certificates_are_not_taken(
    certificate: Certificate, scheme: str, option: str
) -> None:
    mailbox = Mailbox()
    with (
        smtp(mailbox, **{option: certificate.server}) as port,
        pytest.raises(mail.MailUnreachable, match="certificate"),
    ):
        await mail.send_smtp(MAIL, f"{scheme}://localhost:{port}", timeout=5)
    assert not mailbox.mails


async def test_credentials_are_percent_decoded(certificate: Certificate) -> None:
    mailbox = Mailbox()
    with smtp(
        mailbox, tls_context=certificate.server, authenticator=mailbox.login, auth_required=True
    ) as port:
        url = f"smtp://{ENCODED_LOGIN}@localhost:{port}"
        await mail.send_smtp(MAIL, url, timeout=5, tls_context=certificate.client)
    assert len(mailbox.mails) == 1
    assert mailbox.logins[-1] == tuple(part.encode() for part in LOGIN)


async def test_wrong_passwords_are_refused_not_forever(certificate: Certificate) -> None:
    mailbox = Mailbox()
    with smtp(
        mailbox, tls_context=certificate.server, authenticator=mailbox.login, auth_required=True
    ) as port:
        url = f"smtp://user:s3cr3t@localhost:{port}"
        with pytest.raises(mail.MailRefused) as caught:
            await mail.send_smtp(MAIL, url, timeout=5, tls_context=certificate.client)
    assert (caught.value.status, caught.value.permanent) == (535, False)
    assert "s3cr3t" not in shown(caught.value)


async def test_remote_passwords_never_travel_unencrypted() -> None:
    mailbox = Mailbox()
    with smtp(mailbox, authenticator=mailbox.login, auth_require_tls=False) as port:
        url = f"smtp://{ENCODED_LOGIN}@0.0.0.0:{port}"
        with pytest.raises(mail.MailRefused, match="STARTTLS") as caught:
            await mail.send_smtp(MAIL, url, timeout=5)
    assert not mailbox.logins
    assert not caught.value.permanent


async def test_local_passwords_may_travel_unencrypted() -> None:
    mailbox = Mailbox()
    with smtp(mailbox, authenticator=mailbox.login, auth_require_tls=False) as port:
        await mail.send_smtp(MAIL, f"smtp://{ENCODED_LOGIN}@127.0.0.1:{port}", timeout=5)
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize(
    ("mailbox", "status", "permanent"),
    [
        (Mailbox(rcpt="550 no such user"), 550, True),
        (Mailbox(rcpt="451 come back later"), 451, False),
        (Mailbox(data="554 spam"), 554, True),
        (Mailbox(data="452 full"), 452, False),
        (Mailbox(data="503 what"), 503, False),
    ],
)
async def test_refusals_tell_status_and_fault(
    mailbox: Mailbox, status: int, permanent: bool
) -> None:
    with smtp(mailbox) as port, pytest.raises(mail.MailRefused, match=str(status)) as caught:
        await mail.send_smtp(MAIL, f"smtp://127.0.0.1:{port}", timeout=5)
    assert (caught.value.status, caught.value.permanent) == (status, permanent)


async def test_failed_farewells_fail_no_mail() -> None:
    mailbox = Mailbox(quit_="421 trouble")
    with smtp(mailbox) as port:
        await mail.send_smtp(MAIL, f"smtp://127.0.0.1:{port}", timeout=5)
    assert len(mailbox.mails) == 1


async def test_nobody_listening_is_unreachable() -> None:
    url = f"smtp://user:s3cr3t@127.0.0.1:{unused_port()}"
    with pytest.raises(mail.MailUnreachable) as caught:
        await mail.send_smtp(MAIL, url, timeout=5)
    assert "s3cr3t" not in shown(caught.value)


async def test_silent_mail_servers_become_unreachable() -> None:
    async with serving(lambda _: silence()) as server:  # which waits for the client to speak first
        with pytest.raises(mail.MailUnreachable):
            await mail.send_smtp(MAIL, f"smtp://127.0.0.1:{server.port}", timeout=0.2)


async def test_steadily_slow_mail_servers_become_unreachable() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            writer.write(b"220 welcome\r\n")
            while await reader.readline():
                await asyncio.sleep(0.15)  # each within the limit, all together not
                writer.write(b"250 well then\r\n")

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(mail.MailUnreachable):
            await mail.send_smtp(MAIL, f"smtp://127.0.0.1:{port}", timeout=0.25)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "smtp://",
        "http://u:s3cr3t@h",
        "smtp://u:s3cr3t/x@h",
        "smtp://u:s3cr3t@h:port",
        "smtp://u:s3cr3t@[h",
        "smtp://u:p:s3cr3t",
    ],
)
async def test_invalid_urls_are_unreachable_and_hidden(url: str) -> None:
    with pytest.raises(mail.MailUnreachable) as caught:
        await mail.send_smtp(MAIL, url, timeout=5)
    assert "s3cr3t" not in shown(caught.value)


INTERNATIONAL = mail.welcome("Ada", "jörg@bücher.example", "Ünï <no-reply@example.org>")


async def test_able_servers_get_international_addresses() -> None:
    mailbox = Mailbox()
    with smtp(mailbox) as port:
        await mail.send_smtp(INTERNATIONAL, f"smtp://127.0.0.1:{port}", timeout=5)
    assert mailbox.envelopes[0].rcpt_tos == ["jörg@bücher.example"]
    assert mailbox.mails[0]["To"] == "jörg@bücher.example"
    assert mailbox.mails[0]["From"] == "Ünï <no-reply@example.org>"


async def test_unable_servers_refuse_international_addresses() -> None:
    with smtp(Mailbox(), enable_SMTPUTF8=False) as port:
        url = f"smtp://127.0.0.1:{port}"
        with pytest.raises(mail.MailRefused, match="SMTPUTF8") as caught:
            await mail.send_smtp(INTERNATIONAL, url, timeout=5)
    assert caught.value.permanent


async def test_sendgrid_is_asked_as_it_documents() -> None:
    async with serving(reply(202)) as server:
        await mail.send_sendgrid(
            MAIL, "SG.key", base_url=server.url, timeout=5, message_id="<task-1@example.org>"
        )
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v3/mail/send")
    assert asked.headers["authorization"] == "Bearer SG.key"
    assert asked.json == {
        "personalizations": [{"to": [{"email": "ada@example.com"}]}],
        "from": {"email": "no-reply@example.org", "name": "Demo"},
        "subject": MAIL.subject,
        "content": [
            {"type": "text/plain", "value": MAIL.text},
            {"type": "text/html", "value": MAIL.html},
        ],
        "headers": {"Message-ID": "<task-1@example.org>"},
    }


async def test_sendgrid_gets_no_absent_fields() -> None:
    async with serving(reply(202)) as server:
        await mail.send_sendgrid(
            mail.welcome("A", "a@b.c", "d@e.f"), "SG.key", base_url=server.url, timeout=5
        )
    assert server.asked[0].json["from"] == {"email": "d@e.f"}
    assert "headers" not in server.asked[0].json


async def test_mailgun_is_asked_as_it_documents() -> None:
    async with serving(reply(200, b'{"id": "<1@mg>", "message": "Queued. Thank you."}')) as server:
        await mail.send_mailgun(
            MAIL, "k-1", "mg.example.org", base_url=server.url, timeout=5, message_id="<1@e.o>"
        )
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v3/mg.example.org/messages")
    assert base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")) == b"api:k-1"
    assert parse_qs(asked.body.decode()) == {
        "from": ["Demo <no-reply@example.org>"],
        "to": ["ada@example.com"],
        "subject": [MAIL.subject],
        "text": [MAIL.text],
        "html": [MAIL.html],
        "h:Message-Id": ["<1@e.o>"],
    }


async def test_mailgun_domains_reach_no_other_path() -> None:
    async with serving(reply(200)) as server:
        await mail.send_mailgun(MAIL, "k-1", "../x?y", base_url=server.url, timeout=5)
    assert server.asked[0].path == "/v3/..%2Fx%3Fy/messages"


async def through(provider: str, base_url: str, key: str = "s3cr3t", timeout: float = 5) -> None:
    if provider == "sendgrid":
        await mail.send_sendgrid(MAIL, key, base_url=base_url, timeout=timeout)
    else:
        await mail.send_mailgun(MAIL, key, "mg.example.org", base_url=base_url, timeout=timeout)


each_provider = pytest.mark.parametrize("provider", ["sendgrid", "mailgun"])


@each_provider
@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (400, True),
        (413, True),
        (401, False),
        (403, False),
        (429, False),
        (500, False),
        (302, False),
    ],
)
async def test_refusing_providers_are_quoted_without_secrets(
    provider: str, status: int, permanent: bool
) -> None:
    answer = b'{"message":\n "not with s3cr3t, ' + b"x" * 999 + b'"}'
    async with serving(reply(status, answer, location="http://127.0.0.1:1/s3cr3t")) as server:
        with pytest.raises(
            mail.MailRefused, match=f'^{status}: {{"message": "not with \\*\\*\\*, xxx'
        ) as caught:
            await through(provider, server.url)
    assert (caught.value.status, caught.value.permanent) == (status, permanent)
    assert len(str(caught.value)) < 250
    assert "s3cr3t" not in shown(caught.value)
    assert server.url not in shown(caught.value)
    assert len(server.asked) == 1


@each_provider
@pytest.mark.parametrize(
    "answer",
    [
        lambda _: silence(),
        lambda _: dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"."),
        b"nonsense\r\n\r\n",
        in_turn(reply(200)[:-9]),
    ],
)
async def test_unanswering_providers_are_unreachable(provider: str, answer: bytes | Answer) -> None:
    async with serving(answer) as server:
        with pytest.raises(mail.MailUnreachable) as caught:
            await through(provider, server.url, timeout=0.2)
    assert "s3cr3t" not in shown(caught.value)


@each_provider
@pytest.mark.parametrize(
    "base_url", ["", "nowhere", "http://[", "http://nowhere.invalid/s3cr3t", "ftp://s3cr3t"]
)
async def test_absent_providers_are_unreachable(provider: str, base_url: str) -> None:
    with pytest.raises(mail.MailUnreachable) as caught:
        await through(provider, base_url)
    assert "s3cr3t" not in shown(caught.value)


@each_provider
async def test_an_endless_answer_is_not_read(provider: str) -> None:
    async with serving(lambda _: endless(b"HTTP/1.1 500 No\r\n\r\n", b"no" * 9999)) as server:
        with pytest.raises(mail.MailRefused, match=r"^500: nono"):
            await through(provider, server.url, timeout=30)
    async with serving(lambda _: endless(b"HTTP/1.1 202 Yes\r\n\r\n", b"yes" * 9999)) as server:
        await through(provider, server.url, timeout=30)


@each_provider
async def test_a_compressed_answer_is_not_unpacked(provider: str) -> None:
    bomb = gzip.compress(b"no" * 999_999)
    async with serving(reply(500, bomb, content_encoding="gzip")) as server:
        with pytest.raises(mail.MailRefused, match=r"^500: $"):
            await through(provider, server.url)
    assert server.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("line", [b"x", b"250-x\r\n"])
async def test_an_endless_smtp_reply_is_refused(line: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while True:
                writer.write(line * 9999)
                await writer.drain()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(mail.MailError, match="too long"):
            await mail.send_smtp(MAIL, f"smtp://127.0.0.1:{port}", timeout=30)


@pytest.mark.parametrize("key", ["s3cr3t\n", "s3cr3t\u20ac", "s3cr3t\0"])
async def test_unusable_keys_are_not_told(key: str) -> None:
    async with serving(reply(202)) as server:
        with pytest.raises(mail.MailUnreachable) as caught:
            await through("sendgrid", server.url, key)
    assert "s3cr3t" not in shown(caught.value)
