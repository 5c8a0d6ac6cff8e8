"""ConnectionEventQueue in this process: what it holds is written to the store from here."""

from collections.abc import Callable, Mapping, Sequence

from shared.adapters.held_queue import BufferedQueue
from shared.records import ConnectionEvent

Write = Callable[[str, Sequence[ConnectionEvent]], None]


class LocalQueue(BufferedQueue):
    """See `shared.ports.ConnectionEventQueue`.

    Args:
        write: called in the queue's own thread with an org and its sightings.
    """

    def __init__(self, write: Write, *, pause: float = 1.0, room: int = 10_000) -> None:
        super().__init__(pause=pause, room=room)
        self._write = write

    def _hand_on(self, held: Mapping[str, Sequence[ConnectionEvent]]) -> None:
        for org_id, sightings in held.items():
            try:
                self._write(org_id, sightings)
            except Exception:  # noqa: BLE001 - whatever it is, `lost` tells it, and the queue goes on
                self.lost(len(sightings))  # of this org; the others' are still written
