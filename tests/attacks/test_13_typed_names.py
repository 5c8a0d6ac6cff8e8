"""A stranger types a device's name, without password, on a listener of the broker that asks for no certificate.

VerneMQ and mosquitto send the same question for both listeners, with the same key.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from demo.processes import Failed
from demo.stack import ApiRefused
from shared.records import Role
from tests.attacks.rig import Attacked, attacked

LISTENER = "certificates"
VERNEMQ, ACLCHECK = "//verifyClient/vernemq", "//verifyClient/mosquitto/aclcheck"


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("typed")) as made:
        made.create_org("alpha1")
        yield made


@pytest.fixture(scope="module")
def key(functions: Attacked) -> str:
    """The key of the broker whose listener for certificates proves names."""
    try:
        return functions.key(Role.BROKER, "alpha1", proof="broker", listener=LISTENER)
    except Failed:  # version 0.1.0 knows no listeners
        return functions.key(Role.BROKER, "alpha1", proof="broker")


def ask(functions: Attacked, key: str, path: str, body: dict[str, Any], **headers: str) -> Any:
    try:
        return functions.call(key, "POST", path, body, **headers)
    except ApiRefused as refused:
        return refused.args[0]


def vernemq(mountpoint: str, **more: Any) -> dict[str, Any]:
    names = {"username": "d:thermo:42", "client_id": "d:alpha1:thermo:42", "mountpoint": mountpoint}
    return {"peer_addr": "192.0.2.9", "peer_port": 8888, **names, **more}


@pytest.mark.parametrize("mountpoint", ["", "plain"])
def test_vernemq_admits_no_typed_name(functions: Attacked, key: str, mountpoint: str) -> None:
    """A client of the plain listener sends a user name, and neither a password nor a certificate."""
    register = vernemq(mountpoint, password=None, clean_session=True)
    publish = vernemq(mountpoint, topic="alpha1/thermo/42/evt", qos=1, payload="eA==", retain=False)
    subscribe = vernemq(mountpoint, topics=[{"topic": "alpha1/thermo/42/#", "qos": 1}])
    for hook, body in (
        ("auth_on_register", register),
        ("auth_on_register_m5", register),
        ("auth_on_publish", publish),
        ("auth_on_subscribe", subscribe),
    ):
        answer = ask(functions, key, VERNEMQ, body, vernemq_hook=hook)
        assert answer == {"result": {"error": "not_allowed"}}, (hook, answer)


@pytest.mark.parametrize("address", [ACLCHECK, ACLCHECK + "?listener=plain"])
def test_mosquitto_gives_a_typed_name_no_topic(functions: Attacked, key: str, address: str) -> None:
    """The plugin of the plain listener asks about a name that its client typed."""
    asked = {"username": "d:thermo:42", "clientid": "d:alpha1:thermo:42", "topic": "alpha1/thermo/42/evt", "acc": 2}
    answer = ask(functions, key, address, asked)
    assert "403" in answer, answer


def test_the_listener_with_certificates_works(functions: Attacked, key: str) -> None:
    register = vernemq(LISTENER, password=None, clean_session=True)
    assert ask(functions, key, VERNEMQ, register, vernemq_hook="auth_on_register") == {"result": "ok"}
    asked = {"username": "d:thermo:42", "clientid": "d:alpha1:thermo:42", "topic": "alpha1/thermo/42/evt", "acc": 2}
    assert ask(functions, key, f"{ACLCHECK}?listener={LISTENER}", asked) == {"ok": True, "error": ""}
