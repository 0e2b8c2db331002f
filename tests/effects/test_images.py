"""Fetching a picture, and keeping it."""

import gzip
import io
import os
import resource
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from effects import images
from effects.public_addresses import PublicOnlyTransport
from tests.effects.loopback import Asked, dripping, endless, reply, serving, silence, unused_port

pytestmark = pytest.mark.anyio

SECRET = "s3cr3t"


async def fetch(url: str) -> bytes:
    return await images.fetch(url, allow_private=True)


async def test_the_servers_bytes_arrive_unchanged() -> None:
    async with serving(reply(200, b"pixels")) as server:
        assert await fetch(server.url + "/a.png?b") == b"pixels"
    assert server.asked[0].path == "/a.png?b"
    assert server.asked[0].headers["accept-encoding"] == "identity"


async def test_private_addresses_are_refused_unless_allowed() -> None:
    async with serving(reply(200)) as server:
        with pytest.raises(
            images.ImageRefused, match=r"^127\.0\.0\.1 is not on the public internet$"
        ):
            await images.fetch(server.url)
    assert not server.connections


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pictures",
        "http://",
        "http://1.2.3.256/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "//x/y",
        "http://x:y/",
        "http://x:99999/",
        "http://\ud800.example/",
        "http://a\n.example/",
        "data:image/png;base64,AAAA",
        "http://" + "a" * 70_000,
    ],
)
async def test_only_http_urls_are_accepted(url: str) -> None:
    with pytest.raises(images.ImageRefused):
        await fetch(url)


@pytest.mark.parametrize(
    "host", ["xn--a.example", "a..b", "x" * 64, "127.0.0.1:0", "[", 'a"b', "%00", "nowhere.invalid"]
)
async def test_missing_hosts_are_unfetchable(host: str) -> None:
    with pytest.raises(images.ImageUnfetchable):
        await fetch(f"http://{host}/")


async def test_nobody_listening_is_unfetchable() -> None:
    with pytest.raises(
        images.ImageUnfetchable, match=r"^127\.0\.0\.1 gave no picture \(ConnectError\)$"
    ):
        await fetch(f"http://127.0.0.1:{unused_port()}/")


@pytest.mark.parametrize("status", [204, 206, 304, 404, 500])
async def test_any_status_but_200_is_unfetchable(status: int) -> None:
    async with serving(reply(status)) as server:
        with pytest.raises(images.ImageUnfetchable, match=rf"^127\.0\.0\.1 answered {status}$"):
            await fetch(server.url)


@pytest.mark.parametrize(
    "answer",
    [
        reply(404),
        reply(200, b"x" * 50, content_length="99"),
        reply(200, content_encoding="br"),
        b"nonsense\r\n\r\n",
        reply(302, location="ftp://127.0.0.1/s3cr3t"),
        reply(302, location="http://169.254.169.254:x/s3cr3t"),
    ],
)
async def test_errors_tell_only_the_urls_host(answer: bytes) -> None:
    async def cut(_: Asked) -> AsyncIterator[bytes]:
        yield answer

    async with serving(lambda asked: cut(asked)) as server:
        url = server.url.replace("//", f"//user:{SECRET}@") + f"/{SECRET}?{SECRET}#{SECRET}"
        with pytest.raises(images.ImageError) as caught:
            await fetch(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert "127.0.0.1" in str(caught.value) or isinstance(caught.value, images.ImageRefused)


def hops(count: int, last: bytes) -> dict[str, bytes]:
    return {f"/{n}": reply(302, location=f"/{n + 1}") for n in range(count)} | {f"/{count}": last}


async def test_five_redirects_are_followed() -> None:
    answers = hops(5, reply(200, b"pixels"))
    async with serving(lambda asked: answers[asked.path]) as server:
        assert await fetch(server.url + "/0") == b"pixels"


async def test_six_redirects_are_too_many() -> None:
    answers = hops(6, reply(200, b"pixels"))
    async with serving(lambda asked: answers[asked.path]) as server:
        with pytest.raises(images.ImageUnfetchable, match="more than 5 times"):
            await fetch(server.url + "/0")
    assert len(server.asked) == 6


async def test_a_redirects_body_is_not_read() -> None:
    head = b"HTTP/1.1 302 Found\r\nlocation: /picture\r\n\r\n"

    def answer(asked: Asked) -> bytes | AsyncIterator[bytes]:
        return reply(200, b"pixels") if asked.path == "/picture" else endless(head, bytes(65536))

    async with serving(answer) as server:
        assert await fetch(server.url) == b"pixels"


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1/", "http://[::1]/", "//10.0.0.1/", "http://169.254.169.254/latest"],
)
async def test_redirects_to_private_addresses_are_refused(location: str) -> None:
    sent: list[str] = []

    def internet(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.host)
        return httpx.Response(302, headers={"location": location})

    with pytest.raises(images.ImageRefused):
        await images.fetch(
            "http://8.8.8.8/", transport=PublicOnlyTransport(inner=httpx.MockTransport(internet))
        )
    assert sent == ["8.8.8.8"]


async def test_redirects_to_another_scheme_are_refused() -> None:
    async with serving(reply(302, location="ftp://127.0.0.1/")) as server:
        with pytest.raises(images.ImageRefused):
            await fetch(server.url)


async def test_ten_mebibytes_are_taken() -> None:
    body = bytes(images.MAX_BYTES)
    async with serving(reply(200, body)) as server:
        assert await fetch(server.url) == body


async def test_one_byte_more_is_too_large() -> None:
    async with serving(reply(200, bytes(images.MAX_BYTES + 1))) as server:
        with pytest.raises(images.ImageTooLarge):
            await fetch(server.url)


async def test_an_endless_body_is_too_large() -> None:
    async with serving(lambda _: endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(65536))) as server:
        with pytest.raises(images.ImageTooLarge):
            await fetch(server.url)


async def test_unasked_compression_is_understood() -> None:
    async with serving(reply(200, gzip.compress(b"pixels"), content_encoding="GZip")) as server:
        assert await fetch(server.url) == b"pixels"


async def test_compression_bombs_are_never_unpacked() -> None:
    bomb = gzip.compress(bytes(512 * 1024 * 1024), 9)
    assert len(bomb) < images.MAX_BYTES
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with serving(reply(200, bomb, content_encoding="gzip")) as server:
        with pytest.raises(images.ImageTooLarge):
            await fetch(server.url)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "zstd", "deflate"])
async def test_another_encoding_is_unfetchable(coding: str) -> None:
    async with serving(reply(200, b"x", content_encoding=coding)) as server:
        with pytest.raises(images.ImageUnfetchable, match="not asked for"):
            await fetch(server.url)


async def test_a_broken_encoding_is_unfetchable() -> None:
    async with serving(reply(200, b"this is not gzip", content_encoding="gzip")) as server:
        with pytest.raises(images.ImageUnfetchable):
            await fetch(server.url)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npix"])
async def test_silent_servers_are_given_up(said: bytes) -> None:
    async with serving(lambda _: silence(said)) as server:
        with pytest.raises(images.ImageUnfetchable):
            await images.fetch(server.url, allow_private=True, seconds=0.2)


async def test_trickling_servers_are_given_up() -> None:
    async with serving(lambda _: dripping(b"HTTP/1.1 200 OK\r\n\r\n", b".")) as server:
        with pytest.raises(images.ImageUnfetchable, match="TimeoutError"):
            await images.fetch(server.url, allow_private=True, seconds=0.2)


ID = "task-20260101-120000-000000-0123456789abcdef"


def test_kept_pictures_are_found_with_type(tmp_path: Path) -> None:
    path = images.keep(tmp_path / "new" / "directory", ID, b"pixels", "webp")
    assert images.find(tmp_path / "new" / "directory", ID) == (path, "image/webp")
    assert path.read_bytes() == b"pixels"


def test_nothing_unkept_is_found(tmp_path: Path) -> None:
    images.keep(tmp_path, ID, b"pixels", "png")
    assert images.find(tmp_path, ID[:-1]) is None
    assert images.find(tmp_path / "nowhere", ID) is None


async def test_every_written_format_can_be_found(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        buffer = io.BytesIO()
        Image.new("RGB", (9, 9)).save(buffer, kind)
        path = images.keep(tmp_path, ID, *await images.process(buffer.getvalue(), []))
        assert images.find(tmp_path, ID) == (path, f"image/{kind.lower()}")


def test_second_pictures_replace_across_extensions(tmp_path: Path) -> None:
    images.keep(tmp_path, ID, b"first", "png")
    path = images.keep(tmp_path, ID, b"second", "jpeg")
    assert images.find(tmp_path, ID) == (path, "image/jpeg")
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{ID}.jpeg"]


@pytest.mark.parametrize(
    "job_id",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/passwd",
        "a\0b",
        "a.png",
        "a" * 65,
        "a" * 100_000,
        "ä",
        "a\n",
        "%2e%2e",
        "a b",
        "٣",
    ],
)
def test_invalid_ids_find_and_write_nothing(tmp_path: Path, job_id: str) -> None:
    (tmp_path / "x.png").write_bytes(b"not for you")
    assert images.find(tmp_path / "kept", job_id) is None
    with pytest.raises(ValueError, match="letters, digits and dashes"):
        images.keep(tmp_path / "kept", job_id, b"pixels", "png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.png"]


def test_unfindable_extensions_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="extension"):
        images.keep(tmp_path, ID, b"pixels", "html")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond 64 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_pictures_whole(tmp_path: Path) -> None:
    path = images.keep(tmp_path, ID, b"before", "png")
    with pytest.raises(OSError, match="too large"):
        images.keep(tmp_path, ID, bytes(1024 * 1024), "jpeg")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"before"


# --- and removing it ---

TASK = "task-20261120-233412-123456-0123456789abcdef"


def test_pictures_are_listed_and_removed(tmp_path: Path) -> None:
    kept = images.Kept(tmp_path / "images")
    assert kept.ids() == set()
    images.keep(tmp_path / "images", TASK, b"pixels", "png")
    for name in ("notes.png", "task-1.txt", "README", ".hidden"):
        (tmp_path / "images" / name).write_text("another's")
    assert kept.ids() == {TASK}
    kept.remove("../task-1")
    kept.remove("task-1")
    kept.remove(TASK)
    kept.remove(TASK)
    assert kept.ids() == set()
    assert len([*(tmp_path / "images").iterdir()]) == 4


def test_what_a_dead_writer_left_goes(tmp_path: Path) -> None:
    old, new = tmp_path / ".abcd1234", tmp_path / ".abcd5678"
    for path in (old, new):
        path.write_bytes(b"half a picture")
    os.utime(old, (0, 0))
    images.Kept(tmp_path).ids()
    assert (old.exists(), new.exists()) == (False, True)


def test_nobody_else_sees_pictures(tmp_path: Path) -> None:
    path = images.keep(tmp_path / "data" / "images", TASK, b"pixels", "png")
    assert [each.stat().st_mode & 0o777 for each in (path.parent, path)] == [0o700, 0o600]
