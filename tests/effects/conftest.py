"""Certificates and the event loop for the tests of what goes out over the network."""

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

NAMES = "subjectAltName=DNS:localhost,DNS:pictures.example,IP:127.0.0.1"


class Certificate(NamedTuple):
    """A self-signed certificate, as its server shows it and as a trusting client checks it."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    pem: str


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    directory: Path = tmp_path_factory.mktemp("certificate")
    key, cert = directory / "key.pem", directory / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    subject = [
        "-subj",
        "/CN=localhost",
        "-addext",
        NAMES,
        "-days",
        "1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return Certificate(server, ssl.create_default_context(cafile=str(cert)), cert.read_text())
