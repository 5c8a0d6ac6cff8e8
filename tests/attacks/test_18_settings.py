"""Row 18: settings that lose keys, files that other users can read, and a deny list without end."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.processes import Failed
from demo.stack import ApiRefused
from tests.attacks.rig import Attacked, attacked
from tests.support.clouds import REGION
from tests.support.emulators import Emulators
from tests.support.stores import new_place

DENY = "/authorization/denylist"
LIMIT = 10_000


def test_a_store_of_a_cloud_with_master_keys_of_this_machine_does_not_start(
    tmp_path: Path, emulators: Emulators, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container loses its folder at its next start, and with the folder every private key in the store."""
    place = new_place("dynamodb", tmp_path, emulators, monkeypatch)
    store = f"dynamodb://{place.table}?region={REGION}"  # type: ignore[union-attr]
    with pytest.raises(Failed) as failed, attacked(tmp_path, TRUST_STORE=store, TRUST_KEYS="local:"):
        pass
    assert "TRUST_KEYS" in str(failed.value)


def test_no_other_user_of_the_machine_can_read_the_data(tmp_path: Path) -> None:
    """Whatever the umask of the operator's shell."""
    before = os.umask(0o022)
    try:
        with attacked(tmp_path) as functions:
            functions.create_org("alpha1")
            open_files = [
                f"{path.relative_to(tmp_path)} {stat.S_IMODE(path.stat().st_mode):o}"
                for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]
                if path.stat().st_mode & 0o077
            ]
            assert open_files == []
    finally:
        os.umask(before)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tenant_cannot_fill_the_store_with_its_deny_list(tmp_path: Path) -> None:
    """10,000 entries are taken. And a removal of an entry that does not exist costs the same as with an empty list."""
    with attacked(tmp_path) as functions:
        full, empty = functions.create_org("alpha1"), functions.create_org("beta01")

        def deny(number: int) -> int:
            try:
                functions.call(full, "POST", DENY, {"kind": "identity", "value": f"d:thermo:{number}"})
            except ApiRefused as refused:
                return refused.status
            return 201

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(deny, range(LIMIT + 50)))
        few, many = _cost_of_nothing(functions, empty), _cost_of_nothing(functions, full)
        figures = f"a removal of nothing takes {many * 10:.1f} ms of CPU, with an empty list {few * 10:.1f} ms"
        assert many < 5 * max(few, 0.1), f"{figures}; {statuses.count(201)} entries"
        assert (statuses.count(201), statuses.count(409)) == (LIMIT, 50)


def _cost_of_nothing(functions: Attacked, key: str, times: int = 40) -> float:
    """Return the CPU time of one removal of an entry that does not exist, in clock ticks (10 ms)."""
    assert functions.process is not None
    before = _ticks(functions.process.pid)
    for _ in range(times):
        with pytest.raises(ApiRefused):
            functions.call(key, "DELETE", f"{DENY}/f-{'0' * 64}")
    return (_ticks(functions.process.pid) - before) / times


def _ticks(pid: int) -> int:
    """Return the CPU time of a process: utime and stime of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
