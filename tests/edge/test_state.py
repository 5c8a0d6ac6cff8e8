"""The folder of an edge, without HAProxy."""

from pathlib import Path

from edge.feed import HostVersion
from edge.state import State
from tests.support import certs

ONE, TWO = "mtxpd0.messaging.example.com", "other1.messaging.example.com"


def put(state: State, name: str) -> None:
    issued = certs.server(name)
    fingerprint = state.prepare(name, issued.pem + issued.key_pem)
    state.flush([name])
    state.commit(HostVersion(name, "", "v1"), "v1", fingerprint)


def test_the_file_of_a_removed_host_is_deleted_also_if_another_host_is_new(tmp_path: Path) -> None:
    """The file contains a private key."""
    state = State(tmp_path / "edge")
    put(state, ONE)
    state.save()
    state.remove(ONE)
    put(state, TWO)
    state.save()
    state.close()
    assert [path.name for path in state.certificates.iterdir()] == [f"{TWO}.pem"]
