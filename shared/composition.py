"""The only place that names concrete adapters: settings in, a working set of tools out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.config import InProcess, LocalKeys, Settings, SQLite, WrongSetting
from shared.ports import Clock, DocumentStore, KeySealer, SightingQueue
from shared.repository import Repository
from shared.usecases import usage
from shared.usecases.tools import Tools
from shared.validation.topics import TopicPrefix


@dataclass(frozen=True)
class App:
    """Tools, and how to give back what they hold."""

    tools: Tools
    settings: Settings
    store: DocumentStore
    sealer: KeySealer
    queue: SightingQueue

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
    """An App on the store, keys and queue that *settings* name.

    Args:
        wrap: stands between the repository and the store, for a test that counts or disturbs.
        queue_pause: seconds between two writes of the queue behind the answer.

    Raises: WrongSetting, StoreUnavailable."""
    store = wrap(_store(settings))
    repository = Repository(store)
    sealer = _sealer(settings)
    queue = _queue(settings, repository, queue_pause)
    tools = Tools(
        repository,
        sealer,
        queue,
        clock,
        platform_domain=settings.domain,
        weak_keys=settings.weak_keys,
        rate_per_minute=settings.rate_per_minute,
        topic_prefix=TopicPrefix(settings.topic_prefix),
    )
    return App(tools, settings, store, sealer, queue)


# An adapter is imported only where it is chosen: a function loads no client that it does not use.


def _store(settings: Settings) -> DocumentStore:
    match settings.store:
        case SQLite(path):
            from shared.adapters.sqlite_store import SQLiteStore

            return SQLiteStore(path)
        case _:
            raise WrongSetting("TRUST_STORE names a store that this release does not have yet.")


def _sealer(settings: Settings) -> KeySealer:
    match settings.keys:
        case LocalKeys():
            from shared.adapters.local_sealer import LocalSealer

            return LocalSealer(settings.data / "keys")
        case _:
            raise WrongSetting("TRUST_KEYS names a key service that this release does not have yet.")


def _queue(settings: Settings, repository: Repository, pause: float) -> SightingQueue:
    match settings.queue:
        case InProcess():
            from shared.adapters.local_queue import LocalQueue

            return LocalQueue(lambda org_id, sightings: usage.record(repository, org_id, sightings), pause=pause)
        case _:
            raise WrongSetting("TRUST_QUEUE names a queue that this release does not have yet.")
