"""A TCP proxy before a database, which can fall silent as a network does, without a word."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from sqlalchemy.engine import make_url


class Link:
    """One connection through the proxy, which may be silent while others are not."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self.is_open = threading.Event()
        self.is_open.set()
        self.is_marked = False
        self.is_begun = False  # whether it is in a transaction that ends with a COMMIT

    def cut(self) -> None:
        for each in (self.near, self.far):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Forwards `url` to the server at `database_url`."""

    def __init__(self, database_url: str) -> None:
        target = make_url(database_url)
        self._target = target.host or "127.0.0.1", target.port or 5432
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        self._is_open = threading.Event()
        self._is_open.set()
        self._links: list[Link] = []
        self._mark = b""
        self._fate: Callable[[Link, bytes], bytes] | None = None
        self.has_struck = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()
        self.thaw()

    def freeze(self) -> None:
        """Hold back what either side says, and tell neither."""
        self._is_open.clear()

    def stall(self, count: int) -> None:
        """Hold back what is said over so many connections, those made last; the others go on."""
        for link in self._links[-count:]:
            link.is_open.clear()

    def thaw(self) -> None:
        """Forward what was held back, and all that follows."""
        self._is_open.set()
        for link in self._links:
            link.is_open.set()

    def cut(self) -> None:
        """Close every connection; what was held back is lost."""
        links, self._links = self._links, []
        for link in links:
            link.cut()

    def strike(self, fate: Callable[[Link, bytes], bytes], mark: str) -> None:
        """Let the fate decide, once, what is forwarded of the COMMIT that follows the mark.

        In a transaction that ends by itself, the statement that bears the mark commits.
        """
        self._mark, self._fate = mark.encode(), fate
        self.has_struck.clear()

    def freeze_behind(self, link: Link, commit: bytes) -> bytes:
        """Let the server commit, and hold back its answer with all else that anybody says."""
        self.freeze()
        link.far.sendall(commit)
        return b""

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                link = Link(near, socket.create_connection(self._target))
                self._links.append(link)
                threading.Thread(
                    target=self._forward, args=(link, link.near, link.far), daemon=True
                ).start()
                threading.Thread(
                    target=self._forward, args=(link, link.far, link.near), daemon=True
                ).start()

    def _forward(self, link: Link, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                said = self._decide(link, data) if source is link.near else data
                link.is_open.wait()
                self._is_open.wait()
                sink.sendall(said)
        link.is_open.wait()
        self._is_open.wait()
        link.cut()
        source.close()

    def _decide(self, link: Link, data: bytes) -> bytes:
        link.is_begun |= b"BEGIN" in data
        is_commit = b"COMMIT" in data or not link.is_begun
        link.is_begun &= b"COMMIT" not in data and b"ROLLBACK" not in data
        if self._fate is None:
            return data
        link.is_marked |= self._mark in data
        if not (link.is_marked and is_commit):
            return data
        fate, self._fate = self._fate, None
        said = fate(link, data)
        self.has_struck.set()
        return said


def cut_behind(link: Link, commit: bytes) -> bytes:
    """Let the server commit, and close the connection before its answer has come."""
    link.near.shutdown(socket.SHUT_RDWR)
    link.far.sendall(commit)
    link.cut()
    return b""


def cut_before(link: Link, commit: bytes) -> bytes:
    """Close the connection before the server has heard of the commit."""
    link.cut()
    return b""


def silent_behind(link: Link, commit: bytes) -> bytes:
    """Let the server commit, and forward nothing on this connection any more."""
    link.is_open.clear()
    link.far.sendall(commit)
    return b""


def silent_before(link: Link, commit: bytes) -> bytes:
    """Forward nothing on this connection any more; `thaw` brings the commit to the server."""
    link.is_open.clear()
    return commit
