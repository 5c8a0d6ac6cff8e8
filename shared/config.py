"""Settings from the environment: the only reader of os.environ. A wrong one stops the start with a sentence."""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct, field

from shared.validation.names import is_domain
from shared.validation.topics import DEFAULT_PREFIX, is_prefix

_WEAK_ID: Final = r"[0-9a-f]{20}|[0-9a-f]{64}"
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_METRICS: Final = ("each", "second", "off")
_BUCKET: Final = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_PLAIN: Final = r"[!-~]+"  # ASCII without spaces and control characters
_SECRET_MIN: Final = 16  # bytes


class WrongSetting(Exception):
    """A setting that cannot be used. Its text names the variable and says what it takes."""


class SQLite(Struct, frozen=True):
    """TRUST_STORE=sqlite:///path/of/file.db"""

    path: Path


class Firestore(Struct, frozen=True):
    """TRUST_STORE=firestore://project/database

    Args:
        patience: seconds until an unanswered question is given up; a verdict has two in all."""

    project: str
    database: str = "(default)"
    patience: float = 1.8


class DynamoDB(Struct, frozen=True):
    """TRUST_STORE=dynamodb://table?region=eu-central-1

    Args:
        patience: seconds until an unanswered question is given up; a verdict has two in all."""

    table: str
    region: str | None = None
    patience: float = 1.8


class LocalKeys(Struct, frozen=True):
    """TRUST_KEYS=local: (files in TRUST_DATA/keys)"""


class AwsKms(Struct, frozen=True):
    """TRUST_KEYS=awskms:<key id, ARN or alias>"""

    key: str


class GcpKms(Struct, frozen=True):
    """TRUST_KEYS=gcpkms:projects/…/locations/…/keyRings/…/cryptoKeys/…"""

    key: str


class InProcess(Struct, frozen=True):
    """TRUST_QUEUE=local:"""


class Sqs(Struct, frozen=True):
    """TRUST_QUEUE=sqs:<queue URL>"""

    url: str


class PubSub(Struct, frozen=True):
    """TRUST_QUEUE=pubsub:projects/…/topics/…"""

    topic: str


class Webhook(Struct, frozen=True):
    """TRUST_WEBHOOK=https://… and TRUST_WEBHOOK_SECRET"""

    url: str
    secret: bytes

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Webhook({self.url})"


class Oidc(Struct, frozen=True):
    """TRUST_OIDC_*: the issuer whose tokens are believed.

    Args:
        audience: what its tokens must be meant for.
        client_id: the console's; None: nobody signs in there through the issuer.
        org_claim, role_claim: which claims name the one org and the one role of a token.
    """

    issuer: str
    audience: str
    client_id: str | None = None
    org_claim: str = "org"
    role_claim: str = "role"


class Settings(Struct, frozen=True):
    """What an operator can set. The README has the table.

    Args:
        port: where the local server listens; 0 is any free port.
        data: folder of the embedded store, keys and uploads.
        store: where documents are kept.
        keys: which master keys seal private keys.
        queue: what carries sightings behind the answer.
        domain: the platform domain.
        weak_keys: ids of keys known to be weak (`shared.x509.public_keys.key_ids`).
        rate_per_minute: new server certificates and requests of one org.
        topic_prefix: under which a device has its topics.
        behind_tls: a proxy that ends TLS stands before this process, and nobody reaches it another way.
        log: least level that is logged.
        metrics: how decisions are counted in the log: a line for each, one a second, or none.
        upload_bucket: the only bucket whose events onUpload believes.
        webhook: whom expiryReport tells.
        oidc: whose tokens are believed beside API keys; None: nobody's.
    """

    port: int = 8080
    data: Path = Path("data")
    store: SQLite | Firestore | DynamoDB = field(default_factory=lambda: SQLite(Path("data/trust.db")))
    keys: LocalKeys | AwsKms | GcpKms = field(default_factory=LocalKeys)
    queue: InProcess | Sqs | PubSub = field(default_factory=InProcess)
    domain: str = "internetofthings.ibmcloud.com"
    weak_keys: frozenset[str] = frozenset()
    rate_per_minute: int = 10
    topic_prefix: str = DEFAULT_PREFIX
    behind_tls: bool = False
    log: str = "INFO"
    metrics: str = "each"
    upload_bucket: str | None = None
    webhook: Webhook | None = None
    oidc: Oidc | None = None

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
            behind_tls=_yes(env, "TRUST_BEHIND_TLS"),
            log=_level(env),
            metrics=_metrics(env),
            upload_bucket=_bucket(env),
            webhook=_webhook(env),
            oidc=_oidc(env),
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


def _oidc(env: Mapping[str, str]) -> Oidc | None:
    issuer, audience = env.get("TRUST_OIDC_ISSUER"), env.get("TRUST_OIDC_AUDIENCE")
    if not issuer and not audience:
        return None
    if not issuer or not audience:
        missing = "TRUST_OIDC_AUDIENCE" if issuer else "TRUST_OIDC_ISSUER"
        raise WrongSetting(f"{missing} is missing; TRUST_OIDC_ISSUER and TRUST_OIDC_AUDIENCE are set together.")
    if not _is_issuer(issuer):
        raise WrongSetting(
            f"TRUST_OIDC_ISSUER is {issuer!r}; it takes an https:// address without query (http:// for this machine "
            "only), exactly as the issuer writes it in its tokens."
        )
    return Oidc(
        issuer,
        audience,
        env.get("TRUST_OIDC_CLIENT_ID") or None,
        env.get("TRUST_OIDC_ORG_CLAIM") or "org",
        env.get("TRUST_OIDC_ROLE_CLAIM") or "role",
    )


def _is_issuer(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    local = host in ("localhost", "127.0.0.1", "::1")
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    known = all(one.isascii() and one.isprintable() and one not in " ;,'\"" for one in url)
    return known and plain and bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and local))


def _yes(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name) or "false"
    if text not in ("true", "false"):
        raise WrongSetting(f"{name} is {text!r}; it takes true or false.")
    return text == "true"


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


def _metrics(env: Mapping[str, str]) -> str:
    metrics = (env.get("TRUST_METRICS") or "each").lower()
    if metrics not in _METRICS:
        raise WrongSetting(f"TRUST_METRICS is {metrics!r}; it takes {', '.join(_METRICS)}.")
    return metrics


def _bucket(env: Mapping[str, str]) -> str | None:
    bucket = env.get("TRUST_UPLOAD_BUCKET") or None
    if bucket is not None and not re.fullmatch(_BUCKET, bucket):
        raise WrongSetting(
            f"TRUST_UPLOAD_BUCKET is {bucket!r}; it takes the bucket's bare name, without s3:// or gs://."
        )
    return bucket


def _webhook(env: Mapping[str, str]) -> Webhook | None:
    url = env.get("TRUST_WEBHOOK")
    if not url:
        return None
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        named, parts = False, urlsplit("")
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not named or not safe or "@" in parts.netloc or parts.fragment or not re.fullmatch(_PLAIN, url):
        raise WrongSetting(
            "TRUST_WEBHOOK takes an https:// address without user name (http:// only on this machine itself)."
        )
    return Webhook(url, _secret(env.get("TRUST_WEBHOOK_SECRET", "").strip()))


def _secret(text: str) -> bytes:
    """`whsec_` and base64 (Standard Webhooks), or the bytes of any other text. Never quoted in an error."""
    secret = text.encode()
    if text.startswith("whsec_"):
        try:
            secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            raise WrongSetting("TRUST_WEBHOOK_SECRET begins with whsec_, but what follows is no base64.") from None
    if len(secret) < _SECRET_MIN:
        raise WrongSetting(
            f"TRUST_WEBHOOK needs TRUST_WEBHOOK_SECRET, {_SECRET_MIN} bytes or more: whsec_ and base64, or any text."
        )
    return secret


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
        if not re.fullmatch(_WEAK_ID, one):
            raise WrongSetting(f"TRUST_WEAK_KEYS: entry {number} of {name!r} is neither 20 nor 64 hex digits.")
    return frozenset(ids)
