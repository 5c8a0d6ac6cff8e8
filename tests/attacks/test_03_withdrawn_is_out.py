"""A CA or certificate is withdrawn under another certificate of the same key, while a device is connected.

Decisions compare subject and key, or the issuer's key with the serial number. The live session must be ended by the
same comparison, and sessions that would still be allowed must stay.
"""

import datetime as dt
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.device import Device
from demo.stack import Stack
from tests.e2e.conftest import Tenant, make_tenant
from tests.e2e.pki import NEXT_YEAR, YESTERDAY
from tests.support import certs
from tests.support.certs import Issued

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]


@pytest.fixture
def tenant(shared_stack: Stack, tmp_path: Path) -> Iterator[Tenant]:
    tenant = make_tenant(shared_stack, tmp_path, f"s{secrets.token_hex(3)[:5]}")
    yield tenant
    for device in tenant.devices:
        device.close()


def again(ca: Issued, signer: Issued | None, *, days: int = 0) -> Issued:
    """Issue another certificate of the same subject and key. *days*: how much later it expires."""
    until_then = NEXT_YEAR + dt.timedelta(days=days)
    name = ca.cert.subject.rfc4514_string().removeprefix("CN=")
    return certs.ca(name, signer, private=ca.key, not_before=YESTERDAY, not_after=until_then)


def connect(tenant: Tenant, name: str, signer: Issued, *sent: Issued) -> tuple[Issued, Device]:
    issued, files = tenant.pki.leaf(f"d:thermo:{name}", signer, send=sent)
    return issued, tenant.connect(tenant.client_id(name), files)


def must_be_out(tenant: Tenant, issued: Issued, device: Device, *sent: Issued) -> None:
    """Check that a new connection with the same certificates is refused, and that the live session ends."""
    assert not tenant.device(device.client_id, tenant.pki.files(issued, *sent)).connect()
    assert device.disconnected.wait(5), "a new connection is refused, and the live session stays"


@pytest.mark.parametrize("signer", ["renewed", "cross-signed"])
def test_an_intermediate_is_withdrawn_under_another_certificate_of_its_key(tenant: Tenant, signer: str) -> None:
    """The device sends a renewed or cross-signed certificate of the intermediate that becomes inactive."""
    first = tenant.pki.ca("intermediate", tenant.pki.root)
    other = tenant.pki.root if signer == "renewed" else tenant.pki.ca("another root")
    if signer == "cross-signed":
        tenant.org.upload_ca(other.pem)
    sent = again(first, other, days=1)
    issued, device = connect(tenant, "behind", first, sent)
    _, stays = connect(tenant, "stays", tenant.pki.root)
    tenant.org.change_ca(tenant.org.upload_ca(first.pem), "inactive")
    must_be_out(tenant, issued, device, sent)
    assert stays.connected


def test_a_serial_number_is_denied_under_the_renewed_certificate_of_its_ca(tenant: Tenant) -> None:
    """The CA is registered with two certificates of one key. The entry names either of them."""
    renewed = again(tenant.pki.root, None, days=1)
    ids = {tenant.root_id, tenant.org.upload_ca(renewed.pem)}
    for ca_id in ids:
        issued, device = connect(tenant, f"serial{ca_id[-4:]}", tenant.pki.root)
        _, stays = connect(tenant, "stays", tenant.pki.root)
        tenant.org.deny(kind="serial", value=f"{ca_id}:{issued.cert.serial_number:x}", reason="lost")
        must_be_out(tenant, issued, device)
        assert stays.connected


def test_a_device_behind_a_long_path_is_out_too(tenant: Tenant) -> None:
    """Nine certificates after the device's: the middle one is withdrawn under a renewed certificate."""
    path = [tenant.pki.ca("link 0", tenant.pki.root)]
    for number in range(1, 8):
        path.append(tenant.pki.ca(f"link {number}", path[-1]))
    renewed = again(path[4], path[3], days=1)
    sent = tuple(reversed(path))
    issued, device = connect(tenant, "far", path[-1], *sent)
    tenant.org.change_ca(tenant.org.upload_ca(renewed.pem), "inactive")
    must_be_out(tenant, issued, device, *sent)
