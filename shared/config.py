"""Settings from the environment: the only reader of os.environ. A wrong one stops the start with a sentence."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.validation.names import is_domain

_WEAK_ID: Final = re.compile(r"[0-9a-f]{20}|[0-9a-f]{64}")
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


class WrongSetting(Exception):
    """A setting that cannot be used. Its text names the variable and says what it takes."""


@dataclass(frozen=True)
class Settings:
    """What an operator can set. The README has the table.

    Args:
        port: where the local server listens; 0 is any free port.
        data: folder of the embedded store, keys and uploads.
        store: path of the SQLite file.
        domain: the platform domain.
        weak_keys: ids of keys known to be weak (`shared.validation.strength.key_ids`).
        rate_per_minute: new server certificates and requests of one org.
        log: least level that is logged.
    """

    port: int = 8080
    data: Path = Path("data")
    store: Path = Path("data/trust.db")
    domain: str = "internetofthings.ibmcloud.com"
    weak_keys: frozenset[str] = field(default_factory=frozenset, repr=False)
    rate_per_minute: int = 10
    log: str = "INFO"

    @property
    def master_keys(self) -> Path:
        """Folder of the master keys that seal private keys."""
        return self.data / "keys"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """The settings in *environ* (the process's own where not given). Raises: WrongSetting."""
        env = os.environ if environ is None else environ
        data = Path(env.get("TRUST_DATA") or "data")
        return cls(
            port=_number(env, "PORT", 8080, range(65536)),
            data=data,
            store=_store(env, data),
            domain=_domain(env),
            weak_keys=_weak_keys(env),
            rate_per_minute=_number(env, "TRUST_RATE_PER_MINUTE", 10, range(1, 1_000_001)),
            log=_level(env),
        ).checked(env)

    def checked(self, env: Mapping[str, str]) -> "Settings":
        """Refuse settings of parts that this release does not have: better than ignoring them."""
        for name in ("TRUST_KEYS", "TRUST_QUEUE"):
            if env.get(name, "local:") not in ("", "local:"):
                raise WrongSetting(f"{name} is {env[name]!r}; this release knows local: only.")
        return self


def _store(env: Mapping[str, str], data: Path) -> Path:
    url = env.get("TRUST_STORE")
    if not url:
        return data / "trust.db"
    scheme, found, path = url.partition(":///")
    if scheme != "sqlite" or not found or not path:
        raise WrongSetting(f"TRUST_STORE is {url!r}; it takes sqlite:///path/of/file.db (four slashes: absolute).")
    return Path(path)


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
