"""Settings from the environment: the only reader of os.environ. A wrong one stops the start with a sentence."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.validation.names import is_domain
from shared.validation.topics import DEFAULT_PREFIX, is_prefix

_WEAK_ID: Final = re.compile(r"[0-9a-f]{20}|[0-9a-f]{64}")
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


class WrongSetting(Exception):
    """A setting that cannot be used. Its text names the variable and says what it takes."""


@dataclass(frozen=True)
class SQLite:
    """TRUST_STORE=sqlite:///path/of/file.db"""

    path: Path


@dataclass(frozen=True)
class Firestore:
    """TRUST_STORE=firestore://project/database"""

    project: str
    database: str = "(default)"


@dataclass(frozen=True)
class DynamoDB:
    """TRUST_STORE=dynamodb://table?region=eu-central-1"""

    table: str
    region: str | None = None


@dataclass(frozen=True)
class LocalKeys:
    """TRUST_KEYS=local: (files in TRUST_DATA/keys)"""


@dataclass(frozen=True)
class AwsKms:
    """TRUST_KEYS=awskms:<key id, ARN or alias>"""

    key: str


@dataclass(frozen=True)
class GcpKms:
    """TRUST_KEYS=gcpkms:projects/…/locations/…/keyRings/…/cryptoKeys/…"""

    key: str


@dataclass(frozen=True)
class InProcess:
    """TRUST_QUEUE=local:"""


@dataclass(frozen=True)
class Sqs:
    """TRUST_QUEUE=sqs:<queue URL>"""

    url: str


@dataclass(frozen=True)
class PubSub:
    """TRUST_QUEUE=pubsub:projects/…/topics/…"""

    topic: str


@dataclass(frozen=True)
class Settings:
    """What an operator can set. The README has the table.

    Args:
        port: where the local server listens; 0 is any free port.
        data: folder of the embedded store, keys and uploads.
        store: where documents are kept.
        keys: which master keys seal private keys.
        queue: what carries sightings behind the answer.
        domain: the platform domain.
        weak_keys: ids of keys known to be weak (`shared.validation.strength.key_ids`).
        rate_per_minute: new server certificates and requests of one org.
        topic_prefix: under which a device has its topics.
        log: least level that is logged.
    """

    port: int = 8080
    data: Path = Path("data")
    store: SQLite | Firestore | DynamoDB = SQLite(Path("data/trust.db"))
    keys: LocalKeys | AwsKms | GcpKms = LocalKeys()
    queue: InProcess | Sqs | PubSub = InProcess()
    domain: str = "internetofthings.ibmcloud.com"
    weak_keys: frozenset[str] = field(default_factory=frozenset, repr=False)
    rate_per_minute: int = 10
    topic_prefix: str = DEFAULT_PREFIX
    log: str = "INFO"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """The settings in *environ* (the process's own where not given). Raises: WrongSetting."""
        env = os.environ if environ is None else environ
        data = Path(env.get("TRUST_DATA") or "data")
        return cls(
            port=_number(env, "PORT", 8080, range(65536)),
            data=data,
            store=_store(env, data),
            keys=_keys(env),
            queue=_queue(env),
            domain=_domain(env),
            weak_keys=_weak_keys(env),
            rate_per_minute=_number(env, "TRUST_RATE_PER_MINUTE", 10, range(1, 1_000_001)),
            topic_prefix=_topic_prefix(env),
            log=_level(env),
        )


def _store(env: Mapping[str, str], data: Path) -> SQLite | Firestore | DynamoDB:
    url = env.get("TRUST_STORE") or f"sqlite:///{data / 'trust.db'}"
    scheme, _, rest = url.partition("://")
    name, _, query = rest.partition("?")
    if scheme == "sqlite" and len(name) > 1 and name.startswith("/"):
        return SQLite(Path(name[1:]))
    if scheme == "firestore" and name.count("/") <= 1 and name.strip("/"):
        project, _, database = name.partition("/")
        return Firestore(project, database or "(default)")
    if scheme == "dynamodb" and name and "/" not in name:
        return DynamoDB(name, query.removeprefix("region=") or None)
    raise WrongSetting(
        f"TRUST_STORE is {url!r}; it takes sqlite:///path/of/file.db (four slashes: an absolute path), "
        "firestore://project/database or dynamodb://table?region=eu-central-1."
    )


def _keys(env: Mapping[str, str]) -> LocalKeys | AwsKms | GcpKms:
    scheme, colon, name = (env.get("TRUST_KEYS") or "local:").partition(":")
    match scheme, name:
        case "local", "" if colon:
            return LocalKeys()
        case "awskms", _ if name:
            return AwsKms(name)
        case "gcpkms", _ if name:
            return GcpKms(name)
    raise WrongSetting("TRUST_KEYS takes local:, awskms:<key id, ARN or alias> or gcpkms:<name of the key>.")


def _queue(env: Mapping[str, str]) -> InProcess | Sqs | PubSub:
    scheme, colon, name = (env.get("TRUST_QUEUE") or "local:").partition(":")
    match scheme, name:
        case "local", "" if colon:
            return InProcess()
        case "sqs", _ if name:
            return Sqs(name)
        case "pubsub", _ if name:
            return PubSub(name)
    raise WrongSetting("TRUST_QUEUE takes local:, sqs:<queue URL> or pubsub:<name of the topic>.")


def _domain(env: Mapping[str, str]) -> str:
    domain = (env.get("TRUST_DOMAIN") or "internetofthings.ibmcloud.com").lower()
    if not is_domain(domain):
        raise WrongSetting(f"TRUST_DOMAIN is {domain!r}; it takes a domain like example.com, in A-labels.")
    return domain


def _number(env: Mapping[str, str], name: str, default: int, valid: range) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) not in valid:
        raise WrongSetting(f"{name} is {text!r}; it takes a number from {valid.start} to {valid.stop - 1}.")
    return int(text)


def _topic_prefix(env: Mapping[str, str]) -> str:
    template = env.get("TRUST_TOPIC_PREFIX") or DEFAULT_PREFIX
    if not is_prefix(template):
        raise WrongSetting(
            f"TRUST_TOPIC_PREFIX is {template!r}; it takes whole levels with {{typeId}} and {{deviceId}} among them, "
            f"{{orgId}} and {{class}} where wanted, and a slash at the end, like {DEFAULT_PREFIX}."
        )
    return template


def _level(env: Mapping[str, str]) -> str:
    level = (env.get("TRUST_LOG") or "INFO").upper()
    if level not in _LEVELS:
        raise WrongSetting(f"TRUST_LOG is {level!r}; it takes {', '.join(_LEVELS)}.")
    return level


def _weak_keys(env: Mapping[str, str]) -> frozenset[str]:
    """One id a line: Debian's openssl-blacklist form (20 hex digits), or SHA-256 of SubjectPublicKeyInfo (64)."""
    name = env.get("TRUST_WEAK_KEYS")
    if not name:
        return frozenset()
    try:
        lines = Path(name).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        raise WrongSetting(f"TRUST_WEAK_KEYS names {name!r}, which cannot be read: {type(error).__name__}.") from error
    ids = [line.strip().lower() for line in lines if line.strip() and not line.startswith("#")]
    for number, one in enumerate(ids, start=1):
        if not _WEAK_ID.fullmatch(one):
            raise WrongSetting(f"TRUST_WEAK_KEYS: entry {number} of {name!r} is neither 20 nor 64 hex digits.")
    return frozenset(ids)
