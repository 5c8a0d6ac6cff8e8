"""When each TLS edge asked last.

    edge/{orgId}, edge/platform    `EdgeContact`: a small document for each name under each edge key

An edge asks twice a second, and a session that should end stays while its edge does not ask. So each process notes when
an edge asked, and writes the time at most every 30 s. Writing delays no answer to an edge (`Background`) and is best
effort. A silent edge cannot report itself: a process looks for silent edges whenever it writes for another edge, and
so do `functions.admin sweep` and the API's list of edges.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from shared.edge_records import EdgeContact
from shared.errors import StoreUnavailable, TooBusy
from shared.ports import Background, Clock
from shared.refs import edge_contact_ref, edge_partition
from shared.repository import Repository

log = logging.getLogger(__name__)

SILENT: Final = timedelta(seconds=60)  # without a question; twice the time between two writes
_WRITE_EVERY: Final = timedelta(seconds=30)
_WARN_EVERY: Final = timedelta(hours=1)  # about one silent edge
_FORGET: Final = timedelta(days=1)  # of silence, after which nothing warns any more
_KEEP: Final = timedelta(days=30)
_EDGES_MAX: Final = 200  # documents of one partition: an edge chooses its name
_NOTED_MAX: Final = 1_000  # edges that a process remembers


class Heartbeats:
    """Notes when edges asked, and finds edges that have stopped asking.

    Args:
        background: runs the writes.
    """

    def __init__(self, repository: Repository, clock: Clock, background: Background) -> None:
        self._repository = repository
        self._clock = clock
        self._background = background
        self._noted: dict[tuple[str, str], datetime] = {}  # key and name -> when this process wrote last
        self._warned: dict[tuple[str, str], datetime] = {}

    def note(self, org_id: str | None, key: str, name: str, *, incarnation: str = "") -> None:
        """Note that an edge has asked. Never raises, and never waits for the store.

        Args:
            org_id: the organization of the edge's key; None for a platform key.
            key: the name of the edge's key.
            name: what the edge calls itself; empty where the edge gives no name.
            incarnation: of the organization.
        """
        at = self._clock()
        noted = self._noted.get((key, name))
        if noted is not None and at - noted < _WRITE_EVERY:
            return
        if self._count_recent(key, at) >= _EDGES_MAX:
            return
        if len(self._noted) >= _NOTED_MAX:
            self._noted.clear()
        self._noted[key, name] = at
        contact = EdgeContact(key=key, name=name, asked_at=at, incarnation=incarnation)
        self._background.run(lambda: self._write(org_id, contact))

    def _count_recent(self, key: str, at: datetime) -> int:
        """Return how many names of *key* this process noted within the last _WRITE_EVERY.

        The holder of a key could give another name with each request, and push other edges out of the background."""
        return sum(noted_key == key and at - time < _WRITE_EVERY for (noted_key, _), time in list(self._noted.items()))

    def list_contacts(self, org_id: str | None) -> list[EdgeContact]:
        """Return the edges with a key of *org_id*, or of the platform, that asked within the last month.

        Raises: StoreUnavailable.
        """
        partition = edge_partition(org_id)
        contacts = [contact for _, contact in self._repository.iterate(partition, EdgeContact)]
        return [contact for contact in contacts if self._clock() - contact.asked_at < _KEEP]

    def is_silent(self, contact: EdgeContact) -> bool:
        """Return whether the edge has not asked for SILENT."""
        return self._clock() - contact.asked_at > SILENT

    def warn_of_silent(self, org_id: str | None) -> int:
        """Log a WARNING about each edge of *org_id*, or of the platform, that has stopped asking. Return their number.

        Raises: StoreUnavailable.
        """
        silent = list(self._find_silent(self.list_contacts(org_id)))
        for contact in silent:
            self._warn(contact)
        return len(silent)

    def _write(self, org_id: str | None, asked: EdgeContact) -> None:
        try:
            if self._has_room(org_id, asked):
                ref = edge_contact_ref(org_id, asked.key, asked.name)
                for attempt in self._repository.changing(ref, expires=asked.asked_at + _KEEP):
                    with attempt as stored:
                        if stored is None or asked.asked_at - stored.asked_at >= _WRITE_EVERY:
                            attempt.write(asked)
            self.warn_of_silent(org_id)
        except (StoreUnavailable, TooBusy) as error:
            log.info("the time of an edge's question was not stored: %s", type(error).__name__)

    def _has_room(self, org_id: str | None, asked: EdgeContact) -> bool:
        """Return whether the edge has a document, or may have one."""
        contacts = self.list_contacts(org_id)
        return len(contacts) < _EDGES_MAX or any(
            (contact.key, contact.name) == (asked.key, asked.name) for contact in contacts
        )

    def _find_silent(self, contacts: list[EdgeContact]) -> Iterator[EdgeContact]:
        """Yield the silent edges. An edge without a name may have got one since: the named one is then another."""
        awake = {contact.key for contact in contacts if not self.is_silent(contact)}
        for contact in contacts:
            is_renamed = not contact.name and contact.key in awake
            if self.is_silent(contact) and not is_renamed and self._clock() - contact.asked_at < _FORGET:
                yield contact

    def _warn(self, contact: EdgeContact) -> None:
        at, edge = self._clock(), (contact.key, contact.name)
        warned = self._warned.get(edge)
        if warned is not None and warned > contact.asked_at and at - warned < _WARN_EVERY:
            return
        if len(self._warned) >= _NOTED_MAX:
            self._warned.clear()
        self._warned[edge] = at
        log.warning(
            "a TLS edge has stopped asking: its sessions do not end when they should",
            extra={
                "edge": contact.label,
                "key": contact.key,
                "seconds": round((at - contact.asked_at).total_seconds()),
            },
        )
