"""Fetch a picture from an untrusted URL, have it edited, keep the result, find it again."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio.to_thread
import httpx

from effects.pictures import (
    ImageError,
    ImageRefused,
    ImageTooLarge,
    ImageUnfetchable,
    NotAnImage,
    Operation,
)
from effects.public_addresses import AddressRefused, PublicOnlyTransport

__all__ = [
    "ImageError",
    "ImageRefused",
    "ImageTooLarge",
    "ImageUnfetchable",
    "Kept",
    "NotAnImage",
    "Operation",
    "fetch",
    "find",
    "keep",
    "process",
]

MAX_BYTES: Final = 10 * 1024 * 1024
MAX_REDIRECTS: Final = 5

MEDIA_TYPES: Final = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
}

# Isolated, on this process's own path: the editor needs no sitecustomize, such as `sw-python`'s.
EDITOR: Final = (
    "import sys; sys.path[:] = {path!r}; from effects.editing_process import main; main()"
)

# An id comes out of a URL's path: no dot and no slash, so that it cannot lead anywhere else.
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_OF_TASK = re.compile(rf"(task-[0-9a-f-]{{1,59}})\.(?:{'|'.join(MEDIA_TYPES)})")
_UNFINISHED = re.compile(r"\.[a-z0-9_]{8}")  # as `tempfile` names them
UNFINISHED_SECONDS: Final = 3600

PRIVATE: Final = 0o700  # a directory that nobody else looks into; `tempfile` makes the files so


async def fetch(
    url: str,
    *,
    allow_private: bool = False,
    seconds: float = 10.0,
    transport: httpx.AsyncBaseTransport | None = None,
) -> bytes:
    """Fetch at most 10 MiB within so many seconds for everything, over at most five redirects.

    Only public addresses are reached, unless `allow_private`; `transport` replaces what reaches
    them. Raises ImageRefused, ImageUnfetchable, ImageTooLarge.
    """
    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise ImageRefused("the URL cannot be read") from None
    client = httpx.AsyncClient(
        transport=transport or PublicOnlyTransport(allow_private=allow_private),
        headers={"Accept": "image/*", "Accept-Encoding": "identity"},
        # A dead first address leaves time for the next.
        timeout=httpx.Timeout(seconds, connect=seconds / 3),
        trust_env=False,
    )
    try:
        async with asyncio.timeout(seconds), client:
            return await _download(client, target)
    except AddressRefused as refusal:
        raise ImageRefused(str(refusal)) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, zlib.error) as error:
        kind = type(error).__name__
        raise ImageUnfetchable(f"{_host(target)} gave no picture ({kind})") from None


async def _download(client: httpx.AsyncClient, url: httpx.URL) -> bytes:
    # Not httpx's own following: it reads a redirect's body whole, however long that is.
    request = client.build_request("GET", url)
    for _ in range(MAX_REDIRECTS + 1):
        async with contextlib.aclosing(await client.send(request, stream=True)) as response:
            if response.next_request is None:
                return await _body(response)
            request = response.next_request
    raise ImageUnfetchable(f"{_host(url)} redirects more than {MAX_REDIRECTS} times")


async def _body(response: httpx.Response) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise ImageUnfetchable(f"{_host(response.url)} answered {response.status_code}")
    decode = _decoder(response)
    body = bytearray()
    async for piece in response.aiter_raw():
        body += decode(piece, MAX_BYTES + 1 - len(body))
        if max(len(body), response.num_bytes_downloaded) > MAX_BYTES:
            raise ImageTooLarge(f"{_host(response.url)} sends more than {MAX_BYTES} bytes")
    return bytes(body)


def _decoder(response: httpx.Response) -> Callable[[bytes, int], bytes]:
    # Not httpx's own decoders: they nest, and blow a piece up a thousandfold before anyone counts.
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("gzip", "x-gzip"):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress
    if coding in ("identity", ""):
        return lambda piece, _room: piece
    raise ImageUnfetchable(f"{_host(response.url)} sends an encoding that was not asked for")


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")


async def process(data: bytes, operations: Sequence[Operation]) -> tuple[bytes, str]:
    """Have `editing.process` do this in a process of its own; to be cancelled kills it.

    Raises what that raises, ImageTooLarge also for too much computing, ImageError when something
    else killed it.
    """
    editor = _editor(operations)
    run = anyio.to_thread.run_sync
    try:
        result, said = await run(editor.communicate, data, abandon_on_cancel=True)
    finally:
        editor.kill()
    # On the lines before it libraries complain.
    last = said.decode(errors="replace").strip().rpartition("\n")[2]
    if editor.returncode == 0:
        return result, last
    raise _error(editor.returncode, last)


def _editor(operations: Sequence[Operation]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-I", "-S", "-c", EDITOR.format(path=sys.path), *operations]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)


def _error(code: int, said: str) -> ImageError:
    if code == -signal.SIGXCPU:
        return ImageTooLarge("the picture takes too long")
    kind, _, text = said.partition(": ")
    kinds = {"ImageTooLarge": ImageTooLarge, "NotAnImage": NotAnImage}
    if kind in kinds:
        return kinds[kind](text)
    return ImageError(f"the editor ended with {code}: {said[-500:]}")


def keep(directory: Path, job_id: str, data: bytes, extension: str) -> Path:
    """Write the picture as this id's only one, whole or not at all; return where.

    Blocks for the disk. Raises ValueError for an id or an extension that `find` would not find,
    OSError when the disk does not take it.
    """
    if not _ID.fullmatch(job_id) or extension not in MEDIA_TYPES:
        raise ValueError(
            "the id takes 1 to 64 letters, digits and dashes,"
            f" the extension is one of {[*MEDIA_TYPES]}"
        )
    directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    path = directory / f"{job_id}.{extension}"
    _replace(path, data)
    for other in MEDIA_TYPES.keys() - {extension}:
        (directory / f"{job_id}.{other}").unlink(missing_ok=True)
    return path


def find(directory: Path, job_id: str) -> tuple[Path, str] | None:
    """Return the path and media type of the picture kept for this id, whatever the id may hold."""
    if not _ID.fullmatch(job_id):
        return None
    for extension, media_type in MEDIA_TYPES.items():
        if (path := directory / f"{job_id}.{extension}").is_file():
            return path, media_type
    return None


class Kept:
    """The pictures that are kept for tasks, by their ids, to be removed when those have gone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def ids(self) -> set[str]:
        """List the tasks that a picture is kept for; remove what writers that died have left."""
        if not self._directory.is_dir():
            return set()
        names = [path.name for path in self._directory.iterdir()]
        for name in filter(_UNFINISHED.fullmatch, names):
            path = self._directory / name
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                if time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                    path.unlink()
        return {found[1] for name in names if (found := _OF_TASK.fullmatch(name))}

    def remove(self, id: str) -> None:
        """Remove the task's picture, if there is one."""
        if _ID.fullmatch(id):
            for extension in MEDIA_TYPES:
                (self._directory / f"{id}.{extension}").unlink(missing_ok=True)


def _replace(path: Path, data: bytes) -> None:
    # The temporary name starts with a dot, which no id can hold.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    _sync(path.parent)


def _sync(directory: Path) -> None:
    # Until its directory is on disk too, a crash may take the new name away again.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
