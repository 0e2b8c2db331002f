"""A TCP proxy between the service and its database, which can stop forwarding as a network does, without a word."""

import socket
import threading
from contextlib import suppress
from typing import Self

from sqlalchemy.engine import make_url


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
        self._sockets: list[socket.socket] = []
        self._gates: list[threading.Event] = []  # one for each connection, in the order in which they were made
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
        for gate in self._gates[-count:]:
            gate.clear()

    def thaw(self) -> None:
        """Forward what was held back, and all that follows."""
        self._is_open.set()
        for gate in self._gates:
            gate.set()

    def cut(self) -> None:
        """Close every connection; what was held back is lost."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                gate = threading.Event()
                gate.set()
                self._gates.append(gate)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(source, sink, gate), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, gate: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                gate.wait()
                self._is_open.wait()
                sink.sendall(data)
        gate.wait()
        self._is_open.wait()
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
