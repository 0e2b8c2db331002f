"""The process that edits a picture: what it takes at its worst, and how it ends."""

import asyncio
import contextlib
import io
import os
import select
import signal
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from effects import images
from effects.pictures import Operation

pytestmark = pytest.mark.anyio

MAX_PEAK = 200 * 1024  # KiB

# Put before the editor's program: at its end it leaves its own account of its memory.
ACCOUNT = (
    "import atexit; atexit.register("
    "lambda: open({!r}, 'w').write(open('/proc/self/status').read())); "
)


def encoded(image: Image.Image, kind: str, **saving: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **saving)
    return buffer.getvalue()


def many_coloured(mode: str, width: int, height: int) -> Image.Image:
    gradient = Image.linear_gradient("L").resize((width, height))
    noise = Image.effect_noise((width // 8, height // 8), 60).resize((width, height))
    bands = [noise, gradient, gradient.transpose(Image.Transpose.FLIP_TOP_BOTTOM), gradient]
    return Image.merge(mode, bands[: len(Image.new(mode, (1, 1)).getbands())])


def turned() -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = 6
    return data


def jpeg(mode: str, width: int, height: int) -> bytes:
    image = many_coloured(mode, width, height)
    return encoded(image, "JPEG", quality=60, progressive=True, subsampling=0, exif=turned())


def webp(image: Image.Image) -> bytes:
    return encoded(image, "WEBP", quality=5, method=0, alpha_quality=40, exif=turned())


def animation() -> bytes:
    first, *others = (Image.new("RGBA", (2000, 2000), (n, 0, 0, 9)) for n in range(9))
    return encoded(first, "WEBP", save_all=True, append_images=others, lossless=True, quality=0)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """Make a PNG of 16 bits and four channels, all zero."""
    header = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, interlaced)
    pixels = zlib.compress(bytes(height * (1 + width * 8) + 16 * height), 1)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# The largest that are taken, of every kind that memory is spent on.
WORST: dict[str, tuple[Callable[[], bytes], Sequence[Operation]]] = {
    "JPEG": (lambda: jpeg("RGB", 4000, 4000), ["watermark", "compress"]),
    "JPEG CMYK": (lambda: jpeg("CMYK", 4000, 2500), ["watermark", "compress"]),
    "PNG": (
        lambda: encoded(many_coloured("RGBA", 4000, 3000), "PNG", compress_level=1, exif=turned()),
        ["compress"],
    ),
    "PNG transparent colour": (
        lambda: encoded(
            many_coloured("RGB", 4000, 3000), "PNG", compress_level=1, transparency=(1, 2, 3)
        ),
        ["watermark", "compress"],
    ),
    "PNG interlaced": (lambda: png(4000, 3000, interlaced=True), ["watermark"]),
    "GIF": (lambda: encoded(many_coloured("RGB", 4000, 3000).quantize(256), "GIF"), ["watermark"]),
    "WEBP": (lambda: webp(many_coloured("RGBA", 2000, 2000)), ["watermark"]),
    "WEBP animated": (animation, ["compress", "watermark"]),
}
REFUSED: dict[str, tuple[Callable[[], bytes], Sequence[Operation]]] = {
    "JPEG too large": (lambda: encoded(Image.new("L", (4001, 4000)), "JPEG"), ["resize"]),
    "PNG of one line": (lambda: png(1_000_000, 1), ["resize"]),
    "PNG profile": (
        lambda: png(99, 99, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(300_000_000)))),
        ["resize"],
    ),
    "PNG texts": (
        lambda: png(99, 99, *[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**6)))] * 300),
        ["resize"],
    ),
    "WEBP too large": (
        lambda: encoded(Image.new("RGBA", (6000, 6000)), "WEBP", lossless=True),
        ["resize"],
    ),
}


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "account"
    monkeypatch.setattr(images, "EDITOR", ACCOUNT.format(str(path)) + images.EDITOR)
    return path


def peak(account: Path) -> int:
    lines = account.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize(("make", "operations"), WORST.values(), ids=WORST)
async def test_the_worst_order_respects_200_megabytes(
    make: Callable[[], bytes], operations: Sequence[Operation], account: Path
) -> None:
    result, _ = await images.process(make(), operations)
    assert result
    assert peak(account) < MAX_PEAK


@pytest.mark.parametrize(("make", "operations"), REFUSED.values(), ids=REFUSED)
async def test_what_would_take_more_is_refused(
    make: Callable[[], bytes], operations: Sequence[Operation], account: Path
) -> None:
    with pytest.raises((images.ImageTooLarge, images.NotAnImage)):
        await images.process(make(), operations)
    assert peak(account) < MAX_PEAK


async def test_noise_needs_at_most_200_megabytes(account: Path) -> None:
    noise = webp(Image.merge("RGBA", [Image.effect_noise((16_383, 244), 70)] * 4))
    with contextlib.suppress(images.ImageTooLarge, images.NotAnImage):
        await images.process(noise, ["watermark"])
    assert peak(account) < MAX_PEAK


async def test_an_editors_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = "; import effects.editing as e; e._decode = lambda _: bytes(1 << 28); main()"
    monkeypatch.setattr(images, "EDITOR", images.EDITOR.replace("; main()", greedy))
    with pytest.raises(images.ImageTooLarge, match="memory"):
        await images.process(b"", [])


async def test_killed_editors_deserve_another_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "EDITOR", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(images.ImageError) as caught:
        await images.process(b"", [])
    assert type(caught.value) is images.ImageError


async def test_editors_computing_too_long_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = (
        "; import effects.editing_process as e; e.MAX_SECONDS = 1"
        "; e.process = lambda *_: sum(iter(int, 1)); main()"
    )
    monkeypatch.setattr(images, "EDITOR", images.EDITOR.replace("; main()", endless))
    with pytest.raises(images.ImageTooLarge, match="too long"):
        await images.process(b"", [])


async def test_orders_cut_off_leave_no_editor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    os.mkfifo(pid)
    sleeper = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(images, "EDITOR", sleeper)
    order = asyncio.create_task(images.process(b"", []))
    editor = int(await asyncio.to_thread(pid.read_text))
    ended = os.pidfd_open(editor)
    order.cancel()
    with pytest.raises(asyncio.CancelledError):
        await order
    assert (await asyncio.to_thread(select.select, [ended], [], [], 60))[0]
    os.close(ended)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_editor_outlives_a_deploys_signals(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hit = f"e.process = lambda *_: (os.kill(os.getpid(), {int(number)}), (b'', 'png'))[1]"
    program = images.EDITOR.replace(
        "; main()", f"; import os, effects.editing_process as e; {hit}; main()"
    )
    monkeypatch.setattr(images, "EDITOR", program)
    assert await images.process(b"", []) == (b"", "png")
