"""Settings from environment variables. No other module reads os.environ.

An invalid setting stops the start with a message that names the variable.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct, field

from shared.validation.names import is_domain
from shared.validation.topics import DEVICE_PREFIX, is_prefix, names_org

_WEAK_ID: Final = r"[0-9a-f]{20}|[0-9a-f]{64}"
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_METRICS: Final = ("each", "second", "off")
_EDGE_PLAIN: Final = ("off", "loopback")
_BUCKET: Final = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_PLAIN: Final = r"[!-~]+"  # ASCII without spaces and control characters
_SECRET_MIN: Final = 16  # bytes


class WrongSetting(Exception):
    """An invalid setting. The message names the variable and its valid values."""


class SQLite(Struct, frozen=True):
    """A store in a file (TRUST_STORE=sqlite:///path/of/file.db)."""

    path: Path


class Firestore(Struct, frozen=True):
    """A store in Firestore (TRUST_STORE=firestore://project/database).

    Args:
        project: the Google Cloud project's id.
        database: the database's id.
        retry_budget: the time limit of one request in seconds, including retries; a verdict has two seconds in all.
    """

    project: str
    database: str = "(default)"
    retry_budget: float = 1.8


class DynamoDB(Struct, frozen=True):
    """A store in DynamoDB (TRUST_STORE=dynamodb://table?region=eu-central-1).

    Args:
        table: the table's name.
        region: the AWS region; None for boto3's default.
        retry_budget: the time limit of one request in seconds, including retries; a verdict has two seconds in all.
    """

    table: str
    region: str | None = None
    retry_budget: float = 1.8


class LocalKeys(Struct, frozen=True):
    """Master keys in files (TRUST_KEYS=local: or local:/absolute/folder).

    Args:
        folder: the folder; None for TRUST_DATA/keys.
    """

    folder: Path | None = None


class AwsKms(Struct, frozen=True):
    """A master key in AWS KMS (TRUST_KEYS=awskms:<key id, ARN or alias>)."""

    key: str


class GcpKms(Struct, frozen=True):
    """A master key in Cloud KMS (TRUST_KEYS=gcpkms:projects/…/locations/…/keyRings/…/cryptoKeys/…)."""

    key: str


class InProcess(Struct, frozen=True):
    """A queue in this process (TRUST_QUEUE=local:)."""


class Sqs(Struct, frozen=True):
    """A queue on Amazon SQS (TRUST_QUEUE=sqs:<queue URL>)."""

    url: str


class PubSub(Struct, frozen=True):
    """A queue on Google Pub/Sub (TRUST_QUEUE=pubsub:projects/…/topics/…)."""

    topic: str


class WebhookEndpoint(Struct, frozen=True):
    """The operator's webhook (TRUST_WEBHOOK=https://… and TRUST_WEBHOOK_SECRET)."""

    url: str
    secret: bytes

    def __repr__(self) -> str:
        """Return a representation without the secret."""
        return f"WebhookEndpoint({self.url})"


class Oidc(Struct, frozen=True):
    """The OpenID Connect issuer whose tokens are accepted (TRUST_OIDC_*).

    Args:
        issuer: the issuer's URL, exactly as in the `iss` claim.
        audience: the expected `aud` claim.
        client_id: the client id of the console; None disables the console's sign-in through the issuer.
        org_claim: the name of the claim with the orgId.
        role_claim: the name of the claim with the role.
    """

    issuer: str
    audience: str
    client_id: str | None = None
    org_claim: str = "org"
    role_claim: str = "role"


class Settings(Struct, frozen=True):
    """The operator's settings. The table in docs/settings.md lists the variables.

    Args:
        port: the local server's port; 0 is any free port.
        data: the folder of the embedded store, keys and uploads.
        store: the store of all documents.
        keys: the master keys that seal private keys.
        queue: the queue of connection events.
        domain: the platform domain.
        weak_keys: ids of keys that are known to be weak (`shared.x509.public_keys.key_ids`).
        rate_per_minute: the largest number of new server certificates and requests of an organization.
        verdict_memory: MiB of remembered verdicts in each process; 0: nothing is remembered.
        org_quarantine_days: for which the id of a deleted organization cannot be created again.
        topic_prefix: the prefix of the topics of devices and gateways; None for the default of each class.
        one_org_per_broker: whether each broker, or part of a broker, serves the devices of one organization only.
        behind_tls: whether a proxy terminates TLS before this process, and no client can bypass the proxy.
        plain_edge: whether edgeFeed exports private keys over plain HTTP to programs on the same machine.
        log: the lowest level that this project logs.
        metrics: how decisions are logged: "each" (a line per decision), "second" (a line per second) or "off".
        upload_bucket: the only bucket whose events onUpload accepts.
        webhook: the receiver of expiryReport's messages.
        oidc: the issuer whose tokens are accepted beside API keys; None accepts API keys only.
    """

    port: int = 8080
    data: Path = Path("data")
    store: SQLite | Firestore | DynamoDB = field(default_factory=lambda: SQLite(Path("data/trust.db")))
    keys: LocalKeys | AwsKms | GcpKms = field(default_factory=LocalKeys)
    queue: InProcess | Sqs | PubSub = field(default_factory=InProcess)
    domain: str = "internetofthings.ibmcloud.com"
    weak_keys: frozenset[str] = frozenset()
    rate_per_minute: int = 10
    verdict_memory: int = 64
    org_quarantine_days: int = 30
    topic_prefix: str | None = None
    one_org_per_broker: bool = False
    behind_tls: bool = False
    plain_edge: bool = False
    log: str = "INFO"
    metrics: str = "each"
    upload_bucket: str | None = None
    webhook: WebhookEndpoint | None = None
    oidc: Oidc | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from *environ*, by default the environment of the process.

        Raises: WrongSetting.
        """
        env = os.environ if environ is None else environ
        data = Path(env.get("TRUST_DATA") or "data")
        store = _read_store(env, data)
        _read_base_url(env)  # a wrong value stops the start; `base_url` has the value
        return cls(
            port=_read_number(env, "PORT", 8080, range(65536)),
            data=data,
            store=store,
            keys=_read_keys(env, store),
            queue=_read_queue(env),
            domain=_read_domain(env),
            weak_keys=_read_weak_keys(env),
            rate_per_minute=_read_number(env, "TRUST_RATE_PER_MINUTE", 10, range(1, 1_000_001)),
            verdict_memory=_read_number(env, "TRUST_VERDICT_MEMORY", 64, range(4_097)),
            org_quarantine_days=_read_number(env, "TRUST_ORG_QUARANTINE_DAYS", 30, range(3651)),
            topic_prefix=_read_topic_prefix(env),
            one_org_per_broker=_read_bool(env, "TRUST_ONE_ORG_PER_BROKER"),
            behind_tls=_read_bool(env, "TRUST_BEHIND_TLS"),
            plain_edge=_read_edge_plain(env),
            log=_read_level(env),
            metrics=_read_metrics(env),
            upload_bucket=_read_bucket(env),
            webhook=_read_webhook(env),
            oidc=_read_oidc(env),
        )


def _read_store(env: Mapping[str, str], data: Path) -> SQLite | Firestore | DynamoDB:
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


def _read_keys(env: Mapping[str, str], store: SQLite | Firestore | DynamoDB) -> LocalKeys | AwsKms | GcpKms:
    """Read where the master keys are. Private keys in a store that other machines share need keys that they share.

    Raises: WrongSetting.
    """
    scheme, colon, name = (env.get("TRUST_KEYS") or "local:").partition(":")
    match scheme, name:
        case "local", "" if colon and isinstance(store, SQLite):
            return LocalKeys()
        case "local", "" if colon:
            raise WrongSetting(
                "TRUST_STORE is not on this machine, but TRUST_KEYS=local: keeps the master keys in TRUST_DATA: other "
                "machines cannot open the private keys, and no machine can once the folder is lost. Set TRUST_KEYS to "
                "awskms: or gcpkms:, or to local:/folder with a folder that lasts and that every process shares."
            )
        case "local", _ if name.startswith("/"):
            return LocalKeys(Path(name))
        case "awskms", _ if name:
            return AwsKms(name)
        case "gcpkms", _ if name:
            return GcpKms(name)
    raise WrongSetting(
        "TRUST_KEYS takes local:, local:/folder, awskms:<key id, ARN or alias> or gcpkms:<name of the key>."
    )


def _read_queue(env: Mapping[str, str]) -> InProcess | Sqs | PubSub:
    scheme, colon, name = (env.get("TRUST_QUEUE") or "local:").partition(":")
    match scheme, name:
        case "local", "" if colon:
            return InProcess()
        case "sqs", _ if name:
            return Sqs(name)
        case "pubsub", _ if name:
            return PubSub(name)
    raise WrongSetting("TRUST_QUEUE takes local:, sqs:<queue URL> or pubsub:<name of the topic>.")


@cache
def base_url() -> str:
    """Return where people reach the functions (TRUST_URL), without a slash at the end; empty where it is not set.

    Never raises: `Settings.from_env` refuses a wrong value at the start."""
    try:
        return _read_base_url(os.environ)
    except WrongSetting:
        return ""


def _read_base_url(env: Mapping[str, str]) -> str:
    """Return TRUST_URL without a slash at the end; empty where it is not set. Raises: WrongSetting."""
    url = env.get("TRUST_URL", "").rstrip("/")
    if url and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        raise WrongSetting("TRUST_URL takes the address of the functions, such as https://trust.example.com.")
    return url


def _read_domain(env: Mapping[str, str]) -> str:
    domain = (env.get("TRUST_DOMAIN") or "internetofthings.ibmcloud.com").lower()
    if not is_domain(domain):
        raise WrongSetting(f"TRUST_DOMAIN is {domain!r}; it takes a domain like example.com, in A-labels.")
    return domain


def _read_number(env: Mapping[str, str], name: str, default: int, valid: range) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) not in valid:
        raise WrongSetting(f"{name} is {text!r}; it takes a number from {valid.start} to {valid.stop - 1}.")
    return int(text)


def _read_oidc(env: Mapping[str, str]) -> Oidc | None:
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
        _ = parts.port  # raises ValueError if the port is invalid
    except ValueError:
        return False
    is_bare = not (parts.query or parts.fragment or parts.username or parts.password)
    is_safe = all(char.isascii() and char.isprintable() and char not in " ;,'\"" for char in url)
    has_scheme = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    return is_safe and is_bare and bool(host) and has_scheme


def _read_bool(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name) or "false"
    if text not in ("true", "false"):
        raise WrongSetting(f"{name} is {text!r}; it takes true or false.")
    return text == "true"


def _read_topic_prefix(env: Mapping[str, str]) -> str | None:
    template = env.get("TRUST_TOPIC_PREFIX") or None
    if template is None:
        return None
    if not is_prefix(template):
        raise WrongSetting(
            f"TRUST_TOPIC_PREFIX is {template!r}; it takes whole levels with {{orgId}}, {{typeId}} and {{deviceId}} "
            f"among them, {{class}} where wanted, and a slash at the end, like {DEVICE_PREFIX}."
        )
    if not names_org(template) and not _read_bool(env, "TRUST_ONE_ORG_PER_BROKER"):
        raise WrongSetting(
            f"TRUST_TOPIC_PREFIX is {template!r} without {{orgId}}, so devices of different organizations would share "
            "topics. Add {orgId}; or set TRUST_ONE_ORG_PER_BROKER=true where each broker serves one organization only."
        )
    return template


def _read_edge_plain(env: Mapping[str, str]) -> bool:
    text = (env.get("TRUST_EDGE_PLAIN") or "off").lower()
    if text not in _EDGE_PLAIN:
        raise WrongSetting(f"TRUST_EDGE_PLAIN is {text!r}; it takes {' or '.join(_EDGE_PLAIN)}.")
    return text == "loopback"


def _read_level(env: Mapping[str, str]) -> str:
    level = (env.get("TRUST_LOG") or "INFO").upper()
    if level not in _LEVELS:
        raise WrongSetting(f"TRUST_LOG is {level!r}; it takes {', '.join(_LEVELS)}.")
    return level


def _read_metrics(env: Mapping[str, str]) -> str:
    metrics = (env.get("TRUST_METRICS") or "each").lower()
    if metrics not in _METRICS:
        raise WrongSetting(f"TRUST_METRICS is {metrics!r}; it takes {', '.join(_METRICS)}.")
    return metrics


def _read_bucket(env: Mapping[str, str]) -> str | None:
    bucket = env.get("TRUST_UPLOAD_BUCKET") or None
    if bucket is not None and not re.fullmatch(_BUCKET, bucket):
        raise WrongSetting(
            f"TRUST_UPLOAD_BUCKET is {bucket!r}; it takes the bucket's bare name, without s3:// or gs://."
        )
    return bucket


def _read_webhook(env: Mapping[str, str]) -> WebhookEndpoint | None:
    url = env.get("TRUST_WEBHOOK")
    if not url:
        return None
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host, parts = False, urlsplit("")
    has_scheme = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not has_host or not has_scheme or "@" in parts.netloc or parts.fragment or not re.fullmatch(_PLAIN, url):
        raise WrongSetting(
            "TRUST_WEBHOOK takes an https:// address without user name (http:// only on this machine itself)."
        )
    return WebhookEndpoint(url, _decode_secret(env.get("TRUST_WEBHOOK_SECRET", "").strip()))


def _decode_secret(text: str) -> bytes:
    """Decode `whsec_` and base64 (Standard Webhooks), or take the bytes of any other text.

    Raises: WrongSetting, with a message that does not quote the secret.
    """
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


def _read_weak_keys(env: Mapping[str, str]) -> frozenset[str]:
    """Read the ids of weak keys from a file, one id a line.

    An id has the form of Debian's openssl-blacklist (20 hex digits), or is the SHA-256 of a SubjectPublicKeyInfo (64).

    Raises: WrongSetting.
    """
    name = env.get("TRUST_WEAK_KEYS")
    if not name:
        return frozenset()
    try:
        lines = Path(name).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        raise WrongSetting(f"TRUST_WEAK_KEYS names {name!r}, which cannot be read: {type(error).__name__}.") from error
    ids = [line.strip().lower() for line in lines if line.strip() and not line.startswith("#")]
    for number, key_id in enumerate(ids, start=1):
        if not re.fullmatch(_WEAK_ID, key_id):
            raise WrongSetting(f"TRUST_WEAK_KEYS: entry {number} of {name!r} is neither 20 nor 64 hex digits.")
    return frozenset(ids)
