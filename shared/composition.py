"""Creation of an App from settings. No other module names concrete adapters."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

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
    Background,
    Clock,
    ConnectionEventQueue,
    DocumentStore,
    ImmediateReads,
    InlineKeyWorker,
    KeySealer,
    KeyWorker,
    NoNotifier,
    Notifier,
    ObjectReader,
    TokenVerifier,
    Webhook,
)
from shared.repository import Repository
from shared.usecases.context import Context
from shared.usecases.devices import usage
from shared.usecases.devices.memory import VerdictMemory
from shared.usecases.devices.shown import ShownMemory
from shared.usecases.devices.verify import Verifier
from shared.validation.topics import TopicPrefix

VERDICT_SECONDS: Final = 1.5  # from the arrival of a request to its verdict; 2 s are promised, under load too


class App(msgspec.Struct, frozen=True):
    """The context of the use cases, and everything else that handlers need.

    Args:
        verdict_seconds: the time limit of a verdict, from the arrival of its request.
        recalling: the same App for the event loop: it answers questions from the memory for verdicts only, and never
            waits. None where the store may wait for a network, or nothing is remembered.
        sweep: deletes expired documents, in a store that does not do so by itself. Raises: StoreUnavailable.
    """

    context: Context
    verifier: Verifier
    sealer: KeySealer
    tokens: TokenVerifier | None
    settings: Settings
    store: DocumentStore
    queue: ConnectionEventQueue
    decisions: Decisions
    notifier: Notifier
    background: Background
    verdict_seconds: float = VERDICT_SECONDS
    sweep: Callable[[], None] = lambda: None
    recalling: "App | None" = None

    @property
    def is_embedded(self) -> bool:
        """Whether the store is in this process, so that no request waits for a network."""
        return isinstance(self.settings.store, SQLite)

    def close(self) -> None:
        """Deliver waiting events, messages and counts, and close the store. May be called twice."""
        self.context.call_counter.flush()
        self.queue.close()
        self.notifier.close()
        self.background.close()
        self.decisions.flush()
        self.store.close()


def system_clock() -> datetime:
    """Return the current time, with time zone UTC."""
    return datetime.now(UTC)


def build(
    settings: Settings,
    *,
    clock: Clock = system_clock,
    wrap: Callable[[DocumentStore], DocumentStore] = lambda store: store,
    queue_pause: float = 1.0,
    background: Background | None = None,
    verdict_seconds: float = VERDICT_SECONDS,
    keys_apart: bool = False,
) -> App:
    """Create an App with the store, keys and queue of *settings*.

    Args:
        settings: the operator's settings.
        clock: the clock of the use cases.
        wrap: returns the store that the repository uses, for tests that count or disturb its calls.
        queue_pause: seconds between two deliveries of the queue of connection events.
        background: runs what must not delay an answer; None: a thread.
        verdict_seconds: the time limit of a verdict, from the arrival of its request.
        keys_apart: whether key work has processes of its own, for a process that answers several requests at once.

    Raises: WrongSetting, StoreUnavailable.
    """
    plain_store, sweep = _create_store(settings)
    store = wrap(plain_store)
    repository = Repository(store)
    sealer = _create_sealer(settings)
    queue = _create_queue(settings, repository, queue_pause)
    decisions = Decisions(settings.metrics)
    notifier = _create_notifier(settings)
    background = background or _create_background()
    context = Context(
        repository,
        clock,
        platform_domain=settings.domain,
        weak_keys=settings.weak_keys,
        rate_per_minute=settings.rate_per_minute,
        notifier=notifier,
        background=background,
        org_quarantine=timedelta(days=settings.org_quarantine_days),
        key_work=_create_key_work(keys_apart),
        events=queue,
    )
    tokens = token_verifier(settings.oidc, clock)
    memory = VerdictMemory(settings.verdict_memory * 1024 * 1024)
    verifier = Verifier(context, tokens, decisions, TopicPrefix(settings.topic_prefix), memory=memory)
    app = App(
        context,
        verifier,
        sealer,
        tokens,
        settings,
        store,
        queue,
        decisions,
        notifier,
        background,
        verdict_seconds,
        sweep,
    )
    return msgspec.structs.replace(app, recalling=_recalling(app))


def _recalling(app: App) -> App | None:
    """Return what `App.recalling` is for *app*."""
    if not isinstance(app.store, ImmediateReads) or not app.verifier.memory.is_on:
        return None
    from shared.adapters.immediate_store import ImmediateStore

    context = msgspec.structs.replace(app.context, repository=Repository(ImmediateStore(app.store)))
    verifier = msgspec.structs.replace(app.verifier, context=context, recalls_only=True)
    return msgspec.structs.replace(app, context=context, verifier=verifier)


# An adapter is imported only if it is chosen, so that a function loads no client library that it does not use.


def _create_store(settings: Settings) -> tuple[DocumentStore, Callable[[], None]]:
    """Return the store, and what deletes its expired documents: the clouds' stores do so by themselves."""
    match settings.store:
        case SQLite(path):
            from shared.adapters.sqlite_store import SQLiteStore

            embedded = SQLiteStore(path)
            return embedded, embedded.sweep
        case Firestore(project, database, seconds):
            from shared.adapters.firestore_store import FirestoreStore
            from shared.adapters.retry_budget import RetryBudget

            return FirestoreStore(project, database, retry_budget=RetryBudget(seconds)), lambda: None
        case DynamoDB(table, region, seconds):
            from shared.adapters.dynamodb_store import DynamoDBStore
            from shared.adapters.retry_budget import RetryBudget

            return DynamoDBStore(table, region, retry_budget=RetryBudget(seconds)), lambda: None


def _create_sealer(settings: Settings) -> KeySealer:
    match settings.keys:
        case LocalKeys(folder):
            from shared.adapters.local_sealer import LocalSealer

            return LocalSealer(folder or settings.data / "keys")
        case AwsKms(key):
            from shared.adapters.aws_kms_sealer import AwsKmsSealer

            return AwsKmsSealer(key)
        case GcpKms(key):
            from shared.adapters.gcp_kms_sealer import GcpKmsSealer

            return GcpKmsSealer(key)


def _create_key_work(apart: bool) -> KeyWorker:
    if not apart:
        return InlineKeyWorker()
    from shared.adapters.key_process import KeyProcess

    return KeyProcess()


def _create_queue(settings: Settings, repository: Repository, interval: float) -> ConnectionEventQueue:
    memory = ShownMemory()
    summarize = partial(usage.summarize, memory=memory)
    match settings.queue:
        case InProcess():
            from shared.adapters.local_queue import LocalQueue

            return LocalQueue(
                lambda org_id, events: usage.record_events(repository, org_id, events, memory), interval=interval
            )
        case Sqs(url):
            from shared.adapters.sqs_queue import SqsQueue

            return SqsQueue(url, summarize, interval=interval)
        case PubSub(topic):
            from shared.adapters.pubsub_queue import PubSubQueue

            return PubSubQueue(topic, summarize, interval=interval)


def _create_notifier(settings: Settings) -> Notifier:
    if settings.webhook is None:
        return NoNotifier()
    from shared.adapters.webhook import SignedWebhook

    url, secret = settings.webhook.url, settings.webhook.secret
    if isinstance(settings.queue, InProcess):
        from shared.adapters.background_notifier import BackgroundNotifier

        return BackgroundNotifier(SignedWebhook(url, secret).send)
    # A cloud may stop a function's threads with its response. So the message is sent before, within a few seconds.
    from shared.adapters.prompt_notifier import PromptNotifier

    return PromptNotifier(SignedWebhook(url, secret, seconds=2.0, waits=(0.2,)))


def _create_background() -> Background:
    from shared.adapters.background_thread import BackgroundThread

    return BackgroundThread()


# ------------------------------------------------------------------------------------ adapters of event functions


def s3_objects() -> ObjectReader:
    """Create a reader of uploads in Amazon S3."""
    from shared.adapters.s3_reader import S3Reader

    return S3Reader()


def gcs_objects() -> ObjectReader:
    """Create a reader of uploads in Google Cloud Storage."""
    from shared.adapters.gcs_reader import GcsReader

    return GcsReader()


def folder_objects(folder: Path) -> ObjectReader:
    """Create a reader of uploads in a folder of this machine."""
    from shared.adapters.folder_reader import FolderReader

    return FolderReader(folder)


def webhook(settings: Settings) -> Webhook | None:
    """Create the webhook of expiryReport, or return None without TRUST_WEBHOOK."""
    if settings.webhook is None:
        return None
    from shared.adapters.webhook import SignedWebhook

    return SignedWebhook(settings.webhook.url, settings.webhook.secret)


def token_verifier(oidc: Oidc | None, clock: Clock = system_clock) -> TokenVerifier | None:
    """Create the verifier for tokens of the OIDC issuer, or return None without an issuer."""
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
