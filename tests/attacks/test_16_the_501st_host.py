"""One tenant more than Envoy's list of listeners can hold, whose name comes before all others.

No tenant's host may be lost to Envoy, and the new host must be reported.
"""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from demo.stack import ApiRefused
from shared.records import Role
from tests.attacks.rig import Attacked, attacked

pytestmark = pytest.mark.slow

LISTENERS = "//v3/discovery:listeners"
LIMIT = 500  # hosts on one list, in both versions
# The operator's command, in one process: a process for each organization would take minutes.
CREATE = """
import sys
from functions.admin import main

for org_id in sys.argv[1:]:
    main(["org", "create", org_id], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("hosts")) as made:
        yield made


def create(functions: Attacked, *org_ids: str) -> None:
    command = [sys.executable, "-c", CREATE, *org_ids]
    subprocess.run(command, cwd=functions.tree, env=functions.env, check=True, capture_output=True)


def hosts(functions: Attacked, key: str, **metadata: Any) -> set[str]:
    """Return the hosts of the list, as Envoy asks for it."""
    [listener] = functions.call(key, "POST", LISTENERS, {"node": {"metadata": metadata}})["resources"]
    return {host for chain in listener["filter_chains"] for host in chain["filter_chain_match"]["server_names"]}


def test_the_501st_host_takes_no_host_from_envoy(functions: Attacked) -> None:
    key = functions.key(Role.EDGE)
    before = hosts(functions, key)
    create(functions, *(f"org{number:03x}" for number in range(LIMIT - len(before))))
    before = hosts(functions, key)
    assert len(before) == LIMIT
    create(functions, "aaaaa1")
    try:
        assert hosts(functions, key) == before
    except ApiRefused as refused:
        pytest.fail(f"Envoy gets no list any more: {refused}")
    log = (functions.folder / "functions.log").read_text()
    assert "aaaaa1.messaging" in next(line for line in log.splitlines() if '"severity":"WARNING"' in line), "reported"
    assert hosts(functions, key, organizations=["aaaaa1"]) == {"aaaaa1.messaging.iot.example"}
