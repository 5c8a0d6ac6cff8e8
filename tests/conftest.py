import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from functions.hosts import collector
from shared import log
from tests.support.clouds import aws, pubsub  # noqa: F401 - fixtures
from tests.support.emulators import EmulatorMissing, Emulators
from tests.support.harness import Client, Service, make_service
from tests.support.missing import skip_or_fail
from tests.support.openssl import OpenSSL
from tests.support.stores import EVERY_STORE, Place, new_place

collector.resume()  # a host that a test imports must not pause the collector of the tests


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stores",
        default="sqlite,firestore,dynamodb,dynalite",
        help="run tests with a store on these stores only (sqlite,firestore,dynamodb,dynalite)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "stores(*names): the stores that a test runs on, instead of sqlite, firestore and dynamodb"
    )
    config.addinivalue_line("markers", "clouds: tests of the service, repeated on a cloud's store (make test-slow)")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Keep the tests of a module on one worker if the module starts something large.

    A deployment, brokers or a browser are then started once. The larger modules come first.
    """
    return _ModuleScheduling(config, log)


class _ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.startswith(_KEPT_TOGETHER) else nodeid


_KEPT_TOGETHER: Final = (
    "tests/infra/",
    "tests/e2e/",
    "tests/attacks/",
    "tests/console/",
    "tests/edge/",
    "tests/faults/test_faults.py",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with a store once on each store."""
    if "place" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("stores")
        requested = metafunc.config.getoption("--stores").split(",")
        marks = pytest.mark.clouds if marker is None else ()
        places = [
            store if store == "sqlite" else pytest.param(store, marks=marks)
            for store in (marker.args if marker else EVERY_STORE)
            if store in requested
        ]
        metafunc.parametrize("place", places, indirect=True)


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    """The openssl command line in an empty folder."""
    folder = tmp_path / "openssl"
    folder.mkdir()
    return OpenSSL(folder)


@pytest.fixture(scope="session")
def emulators(tmp_path_factory: pytest.TempPathFactory) -> Emulators:
    """The emulators of this run, shared by its workers."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        return Emulators(base.parent, run=os.getppid())
    return Emulators(base, run=os.getpid())


@pytest.fixture
def place(
    request: pytest.FixtureRequest, tmp_path: Path, emulators: Emulators, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """An empty place for documents, on the store that the test runs on."""
    try:
        return new_place(request.param, tmp_path / "data", emulators, monkeypatch)
    except EmulatorMissing as missing:
        skip_or_fail(str(missing))


@pytest.fixture
def service(tmp_path: Path, place: Place) -> Iterator[Service]:
    """A service with one organization, on an empty store; its clock always shows noon on 1 June 2026."""
    made = make_service(tmp_path / "data", store=place)
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


@pytest.fixture(autouse=True)
def own_levels() -> Iterator[None]:
    """Forget the level that a host or command set in the test, so that `caplog` decides what the next test sees."""
    yield
    for name in log.OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Use the name of the parameter as the id of bytes: certificates and keys differ between processes."""
    return argname if isinstance(val, bytes) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the times that end-to-end tests measured, from all workers."""
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
