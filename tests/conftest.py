from collections.abc import Iterator
from pathlib import Path

import pytest

from functions import deadline
from tests.harness import Client, Service, make_service
from tests.openssl import OpenSSL


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    """The openssl command line in an empty folder."""
    folder = tmp_path / "openssl"
    folder.mkdir()
    return OpenSSL(folder)


@pytest.fixture(autouse=True)
def unhurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts take the time they need on a machine that does ten other things; the promise has tests of its own,
    marked `in_time`."""
    if request.node.get_closest_marker("in_time") is None:
        monkeypatch.setattr(deadline, "SECONDS", 60)


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


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes (certificates, keys) are new in each process: as ids they would differ between workers."""
    return argname if isinstance(val, bytes) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The times that end-to-end tests measured, from all workers."""
    measured = [
        (str(name).removeprefix("measured: "), float(str(seconds)))
        for report in terminalreporter.getreports("passed")
        for name, seconds in report.user_properties
        if str(name).startswith("measured: ") and report.when == "call"
    ]
    if measured:
        terminalreporter.section("measured, in seconds")
        for name, seconds in sorted(measured):
            terminalreporter.write_line(f"{seconds:8.2f}  {name}")
