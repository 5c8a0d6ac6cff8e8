"""A device behind EMQX uses topics that begin with `$`, or a client ID that no certificate is bound to.

The rules of the answer are evaluated as EMQX does: the first rule that matches decides, and without a match EMQX allows
(`no_match = allow`, its default).
"""

from collections.abc import Iterator
from typing import Any

import pytest

from demo.stack import Org
from shared.records import Role
from tests.attacks.rig import Attacked, attacked
from tests.e2e.pki import Pki

EMQX = "//verifyClient/emqx"


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("emqx")) as made:
        yield made


@pytest.fixture(scope="module")
def key(functions: Attacked, org: Org) -> str:
    """The key of EMQX."""
    return functions.key(Role.BROKER, org.id)


@pytest.fixture(scope="module")
def org(functions: Attacked) -> Org:
    return Org.create(functions, "alpha1")


@pytest.fixture(scope="module")
def pem(org: Org, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The certificate of the device d:thermo:42."""
    pki = Pki(tmp_path_factory.mktemp("emqx-pki"), org.id)
    org.upload_ca(pki.root.pem)
    return pki.leaf("d:thermo:42")[0].pem


def ask(org: Org, key: str, pem: str, **more: Any) -> Any:
    asked = {"clientid": f"d:{org.id}:thermo:42", "cert_common_name": "d:thermo:42", "cert_pem": pem}
    return org.functions.call(key, "POST", EMQX, {**asked, "serverName": org.host, **more})


def matches(rule: str, topic: str) -> bool:
    """Whether a topic filter matches a topic name (MQTT 5.0, 4.7): wildcards do not match `$` at the beginning."""
    if topic.startswith("$") and rule[0] in "#+":
        return False
    levels, names = rule.split("/"), topic.split("/")
    for number, level in enumerate(levels):
        if level == "#":
            return True
        if number >= len(names) or level not in ("+", names[number]):
            return False
    return len(levels) == len(names)


def may_use(acl: list[dict[str, str]], topic: str) -> bool:
    found = next((rule["permission"] for rule in acl if matches(rule["topic"], topic)), "allow")
    return found == "allow"


@pytest.mark.parametrize(
    "topic",
    [
        "$SYS/brokers/emqx@127.0.0.1/clients/d:alpha1:thermo:43/connected",
        "$delayed/5/alpha1/thermo/43/cmd",  # reaches the topic of another device after 5 s
        "$exclusive/alpha1/thermo/43/cmd",
        "$queue/alpha1/thermo/43/cmd",
        "$share/group/alpha1/thermo/43/cmd",
        "$file/id/init",
    ],
)
def test_no_topic_of_the_broker_is_allowed(org: Org, key: str, pem: str, topic: str) -> None:
    answer = ask(org, key, pem)
    assert answer["result"] == "allow"
    assert may_use(answer["acl"], "alpha1/thermo/42/evt")
    assert not may_use(answer["acl"], "alpha1/thermo/43/evt")
    assert not may_use(answer["acl"], topic), answer["acl"]


@pytest.mark.parametrize("client_id", ["undefined", "null", "${clientid}", ""])
def test_a_client_id_that_nothing_is_bound_to_is_not_admitted(org: Org, key: str, pem: str, client_id: str) -> None:
    """Any device of the organization could end the session of a client with that name."""
    assert ask(org, key, pem, clientid=client_id) == {"result": "deny"}
