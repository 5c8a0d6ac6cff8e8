"""The only place that names concrete adapters: settings in, an App out."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from shared.config import (
    AwsKms,
    DynamoDB,
    Firestore,
    GcpKms,
    InProcess,
    LocalKeys,
    Oidc,
    PubSub,
    Settings,
    SQLite,
    Sqs,
)
from shared.log import Decisions
from shared.ports import (
    Clock,
    ConnectionEventQueue,
    DocumentStore,
    KeySealer,
    NoNotifier,
    Notifier,
    ObjectReader,
    TokenVerifier,
    Webhook,
)
from shared.repository import Repository
from shared.usecases.context import Context
from shared.usecases.devices import usage
from shared.usecases.devices.verify import Verifier
from shared.validation.topics import TopicPrefix


class App(msgspec.Struct, frozen=True):
    """The context, and how to give back what they hold."""

    context: Context
    verifier: Verifier
    sealer: KeySealer
    tokens: TokenVerifier | None
    settings: Settings
    store: DocumentStore
    queue: ConnectionEventQueue
    decisions: Decisions
    notifier: Notifier

    @property
    def is_embedded(self) -> bool:
        """Whether the store is in this process, so that no call waits for a network."""
        return isinstance(self.settings.store, SQLite)

    def close(self) -> None:
        """Write what is held, and close the store. Safe to call twice."""
        self.queue.close()
        self.notifier.close()
        self.decisions.flush()
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
    decisions = Decisions(settings.metrics)
    notifier = _notifier(settings)
    context = Context(
        repository,
        clock,
        platform_domain=settings.domain,
        weak_keys=settings.weak_keys,
        rate_per_minute=settings.rate_per_minute,
        notifier=notifier,
    )
    tokens = token_verifier(settings.oidc, clock)
    verifier = Verifier(context, tokens, queue, decisions, TopicPrefix(settings.topic_prefix))
    return App(context, verifier, sealer, tokens, settings, store, queue, decisions, notifier)


# An adapter is imported only where it is chosen: a function loads no client that it does not use.


def _store(settings: Settings) -> DocumentStore:
    match settings.store:
        case SQLite(path):
            from shared.adapters.sqlite_store import SQLiteStore

            return SQLiteStore(path)
        case Firestore(project, database, patience):
            from shared.adapters.firestore_store import FirestoreStore
            from shared.adapters.patience import RetryBudget

            return FirestoreStore(project, database, patience=RetryBudget(patience))
        case DynamoDB(table, region, patience):
            from shared.adapters.dynamodb_store import DynamoDBStore
            from shared.adapters.patience import RetryBudget

            return DynamoDBStore(table, region, patience=RetryBudget(patience))


def _sealer(settings: Settings) -> KeySealer:
    match settings.keys:
        case LocalKeys():
            from shared.adapters.local_sealer import LocalSealer

            return LocalSealer(settings.data / "keys")
        case AwsKms(key):
            from shared.adapters.aws_kms_sealer import AwsKmsSealer

            return AwsKmsSealer(key)
        case GcpKms(key):
            from shared.adapters.gcp_kms_sealer import GcpKmsSealer

            return GcpKmsSealer(key)


def _queue(settings: Settings, repository: Repository, pause: float) -> ConnectionEventQueue:
    match settings.queue:
        case InProcess():
            from shared.adapters.local_queue import LocalQueue

            return LocalQueue(lambda org_id, sightings: usage.record_events(repository, org_id, sightings), pause=pause)
        case Sqs(url):
            from shared.adapters.sqs_queue import SqsQueue

            return SqsQueue(url, usage.summarize, pause=pause)
        case PubSub(topic):
            from shared.adapters.pubsub_queue import PubSubQueue

            return PubSubQueue(topic, usage.summarize, pause=pause)


def _notifier(settings: Settings) -> Notifier:
    if settings.webhook is None:
        return NoNotifier()
    from shared.adapters.webhook import SignedWebhook

    url, secret = settings.webhook.url, settings.webhook.secret
    if isinstance(settings.queue, InProcess):
        from shared.adapters.background_announcer import BackgroundNotifier

        return BackgroundNotifier(SignedWebhook(url, secret).tell)
    # A cloud stops a function's threads with its answer: what is to be told is told before, within a few seconds.
    from shared.adapters.prompt_announcer import PromptNotifier

    return PromptNotifier(SignedWebhook(url, secret, seconds=2.0, waits=(0.2,)))


# --------------------------------------------------------------------------- what only the event functions work with


def s3_objects() -> ObjectReader:
    """Uploads in Amazon S3."""
    from shared.adapters.s3_reader import S3Reader

    return S3Reader()


def gcs_objects() -> ObjectReader:
    """Uploads in Google Cloud Storage."""
    from shared.adapters.gcs_reader import GcsReader

    return GcsReader()


def folder_objects(folder: Path) -> ObjectReader:
    """Uploads in a folder of this machine."""
    from shared.adapters.folder_reader import FolderReader

    return FolderReader(folder)


def webhook(settings: Settings) -> Webhook | None:
    """Whom expiryReport tells, where TRUST_WEBHOOK names anybody."""
    if settings.webhook is None:
        return None
    from shared.adapters.webhook import SignedWebhook

    return SignedWebhook(settings.webhook.url, settings.webhook.secret)


def token_verifier(oidc: Oidc | None, clock: Clock = system_clock) -> TokenVerifier | None:
    """Who judges tokens of an OIDC issuer, where one is configured."""
    if oidc is None:
        return None
    from shared.adapters.oidc_tokens import OidcTokens

    return OidcTokens(
        issuer=oidc.issuer,
        audience=oidc.audience,
        org_claim=oidc.org_claim,
        role_claim=oidc.role_claim,
        clock=clock,
    )
