"""A tenant names a device like a gateway, or like a device of another organization, and reads its topics."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.processes import Failed
from demo.stack import ApiRefused
from shared.records import Role
from tests.attacks.rig import Attacked, attacked

ACLCHECK = "//verifyClient/mosquitto/aclcheck?listener=certificates"
READ = 1  # MOSQ_ACL_READ


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("topics")) as made:
        made.create_org("alpha1")
        yield made


def prover(functions: Attacked, org_id: str) -> str:
    """Return the key of a broker that passes names only."""
    try:
        return functions.key(Role.BROKER, org_id, proof="broker", listener="certificates")
    except Failed:  # version 0.1.0 knows no listeners
        return functions.key(Role.BROKER, org_id, proof="broker")


def may_read(functions: Attacked, key: str, org_id: str, name: str, topic: str) -> bool:
    kind, _, rest = name.partition(":")
    asked = {"username": name, "clientid": f"{kind}:{org_id}:{rest}", "topic": topic, "acc": READ}
    try:
        return bool(functions.call(key, "POST", ACLCHECK, asked)["ok"])
    except ApiRefused as refused:
        if refused.status == 403:
            return False
        raise


def test_no_device_reads_a_gateways_topics(functions: Attacked) -> None:
    """Neither a device of the same type and id, nor a device whose type is called gateway."""
    key = prover(functions, "alpha1")
    topics = [f"alpha1/{below}/cmd" for below in ("thermo/1", "gateway/thermo/1", "d:gateway/thermo", "gateway/thermo")]
    may = {
        name: {topic for topic in topics if may_read(functions, key, "alpha1", name, topic)}
        for name in ("g:thermo:1", "d:thermo:1", "d:gateway:thermo")
    }
    assert all(may.values()), may
    shared = {(one, other): may[one] & may[other] for one in may for other in may if one < other}
    assert not any(shared.values()), shared


def test_a_prefix_without_organization_does_not_start(tmp_path: Path) -> None:
    """Devices of two organizations would share topics."""
    with pytest.raises(Failed, match="TRUST_TOPIC_PREFIX"):
        share_topics(tmp_path)


def share_topics(folder: Path) -> None:
    with attacked(folder, TRUST_TOPIC_PREFIX="{typeId}/{deviceId}/") as functions:
        may = {}
        for org_id in ("alpha1", "beta01"):
            functions.create_org(org_id)
            key = prover(functions, org_id)
            may[org_id] = may_read(functions, key, org_id, "d:thermo:1", "thermo/1/cmd")
    pytest.fail(f"the functions started, and devices of two organizations may read thermo/1/cmd: {may}")
