from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds import aws, moto_port, pubsub, pubsub_port, run_folder  # noqa: F401 - fixtures
from tests.harness import Client, Service, make_service
from tests.openssl import OpenSSL


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    """The openssl command line in an empty folder."""
    folder = tmp_path / "openssl"
    folder.mkdir()
    return OpenSSL(folder)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with one organization, on an empty store; it is always noon on 1 June 2026."""
    made = make_service(tmp_path / "data")
    yield made
    made.app.close()


@pytest.fixture
def operator(service: Service) -> Client:
    return service.client("operator")


@pytest.fixture
def viewer(service: Service) -> Client:
    return service.client("viewer")


@pytest.fixture
def broker(service: Service) -> Client:
    return service.client("broker")
