"""The only place that names concrete adapters: settings in, a working set of tools out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.adapters.local_queue import LocalQueue
from shared.adapters.local_sealer import LocalSealer
from shared.adapters.sqlite_store import SQLiteStore
from shared.config import Settings
from shared.ports import Clock, DocumentStore
from shared.repository import Repository
from shared.usecases import usage
from shared.usecases.tools import Tools


@dataclass(frozen=True)
class App:
    """Tools, and how to give back what they hold."""

    tools: Tools
    settings: Settings
    store: DocumentStore
    sealer: LocalSealer
    queue: LocalQueue

    def close(self) -> None:
        """Write what is held, and close the store. Safe to call twice."""
        self.queue.close()
        self.store.close()


def system_clock() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)


def build(
    settings: Settings,
    *,
    clock: Clock = system_clock,
    wrap: Callable[[DocumentStore], DocumentStore] = lambda store: store,
    queue_pause: float = 1.0,
) -> App:
    """An App on the store and keys that *settings* name.

    Args:
        wrap: stands between the repository and the store, for a test that counts or disturbs.
        queue_pause: seconds between two writes of the queue behind the answer."""
    store = wrap(SQLiteStore(settings.store))
    repository = Repository(store)
    sealer = LocalSealer(settings.master_keys)
    queue = LocalQueue(lambda org_id, sightings: usage.record(repository, org_id, sightings), pause=queue_pause)
    tools = Tools(
        repository,
        sealer,
        queue,
        clock,
        platform_domain=settings.domain,
        weak_keys=settings.weak_keys,
        rate_per_minute=settings.rate_per_minute,
    )
    return App(tools, settings, store, sealer, queue)
