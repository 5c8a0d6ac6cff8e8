"""kill -9 of the local server in the middle of changes, again and again."""

import random
import signal
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.adapters.local_sealer import LocalSealer
from shared.adapters.sqlite_store import SQLiteStore
from shared.repository import Repository
from tests import server
from tests.faults.check import check
from tests.faults.load import Access, Load

_HOST: Final = "demo01.messaging.internetofthings.ibmcloud.com"
_UNDER_LOAD: Final = (0.03, 0.2)  # seconds between the load's begin and the kill


@dataclass
class Kills:
    """What so many kills did.

    Args:
        starts: seconds from each start to the server's first answer.
        lost, halves, wrong: see `tests.faults.rig.Row`; found after any of the restarts.
        leftovers: what the last check found for a sweep.
    """

    count: int = 0
    acknowledged: int = 0
    dropped: int = 0  # changes that were under way when the server was killed
    verdicts: int = 0
    starts: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.halves or self.wrong)

    @property
    def first_starts(self) -> float:
        """The median of the first tenth (three at least); seconds."""
        return statistics.median(self.starts[: max(3, len(self.starts) // 10)])

    @property
    def last_starts(self) -> float:
        return statistics.median(self.starts[-max(3, len(self.starts) // 10) :])


def kill_again_and_again(folder: Path, count: int) -> Kills:
    """Start, load, kill; after each start read everything back, before the next load."""
    told, draw = Kills(), random.Random(6)
    load: Load | None = None
    for number in range(count + 1):
        began = time.monotonic()
        running = server.start(folder, TRUST_RATE_PER_MINUTE="1000000", TRUST_METRICS="off", TRUST_LOG="ERROR")
        told.starts.append(time.monotonic() - began)
        try:
            address = f"127.0.0.1:{running.port}"
            if load is None:
                access = Access("demo01", running.keys["operator"], running.keys["broker"], _HOST)
                load = Load.on(address, access).employ(changers=4, askers=1, readers=0)
            else:
                _look(folder, load, told)
            if number == count:
                break
            load.begin(address)
            time.sleep(draw.uniform(*_UNDER_LOAD))
            running.stop(signal.SIGKILL)
            load.end()
            told.count += 1
        finally:
            if running.process.returncode is None:
                running.stop(signal.SIGKILL)
    assert load is not None
    history = load.history
    told.acknowledged, told.dropped = history.operations["done"], history.operations["dropped"]
    told.verdicts, told.wrong = history.verdicts.total(), history.wrong
    return told


def _look(folder: Path, load: Load, told: Kills) -> None:
    store = SQLiteStore(folder / "trust.db")
    try:
        found = check(Repository(store), LocalSealer(folder / "keys"), load.access.org_id, load.history)
    finally:
        store.close()
    told.lost += [one for one in found.lost if one not in told.lost]
    told.halves += [one for one in found.halves if one not in told.halves]
    told.leftovers = found.leftovers
