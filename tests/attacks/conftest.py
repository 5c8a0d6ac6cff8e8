"""The stack that an attack through the edge needs: functions, HAProxy with its agent, and mosquitto."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.processes import Missing
from demo.stack import Stack
from tests.attacks.rig import attacked_stack
from tests.e2e.conftest import Tenant, make_tenant
from tests.support.missing import skip_or_fail


@contextmanager
def _stack(folder: Path, **edge_settings: str) -> Iterator[Stack]:
    try:
        with attacked_stack(folder, None, **edge_settings) as stack:
            yield stack
    except Missing as missing:
        skip_or_fail(str(missing))


@pytest.fixture
def stack(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack. The parameter has more settings of the edge."""
    with _stack(tmp_path, **getattr(request, "param", {})) as stack:
        yield stack


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for all tests of a module."""
    with _stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture
def tenant(stack: Stack, tmp_path: Path) -> Iterator[Tenant]:
    """An organization with its CA. Its devices are disconnected after the test."""
    tenant = make_tenant(stack, tmp_path, "alpha1")
    yield tenant
    for device in tenant.devices:
        device.close()
