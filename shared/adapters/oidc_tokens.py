"""Who a token of the configured OpenID Connect issuer speaks for (OpenID Connect Core 1.0, Discovery 1.0; RFC 7519).

Everything believed about a token comes from the issuer's own discovery document and key set, fetched over the address
that was configured: an address inside a token (`jku`, `x5u`) or a key inside it (`jwk`, `x5c`) is never looked at.
The algorithms are those of the key that signed, and asymmetric (RFC 8725, 3.1).
"""

import json
import logging
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from shared.errors import IssuerUnavailable, TokenRefused
from shared.ports import Clock, TokenClaims

log = logging.getLogger(__name__)

LEEWAY: Final = 60  # seconds that two clocks may differ
TOKEN_MAX: Final = 16 * 1024  # characters
DOCUMENT_MAX: Final = 512 * 1024  # bytes of a discovery document or key set
PAUSE: Final = timedelta(minutes=1)  # between two questions to the issuer, whoever asks for them
FRESH: Final = timedelta(minutes=10)  # keys are asked for anew after it: what the issuer withdrew stops counting
KEPT: Final = timedelta(hours=1)  # ... and are used no longer than this where the issuer does not answer
TIMEOUT: Final = 5  # seconds
RSA_BITS_MIN: Final = 2048

_ALGORITHMS: Final[Mapping[str, Sequence[str]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class _Key(msgspec.Struct, frozen=True):
    """A public key of the issuer, and the algorithms that may be used with it."""

    key: Any
    algorithms: Sequence[str]


@dataclass(frozen=True)
class _Issuer:
    """What the issuer said of itself, and when."""

    at: datetime
    token_endpoint: str | None
    keys: Mapping[str, _Key] = field(repr=False)  # by key id; "" for one without


class OidcTokens:
    """A TokenVerifier for the tokens of one issuer."""

    def __init__(self, *, issuer: str, audience: str, org_claim: str, role_claim: str, clock: Clock) -> None:
        self._issuer = issuer
        self._audience = audience
        self._org_claim = org_claim
        self._role_claim = role_claim
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at: datetime | None = None
        self._known: _Issuer | None = None

    def verify(self, token: str) -> TokenClaims:
        header = _header(token)
        key = self._key(header)
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                audience=self._audience,
                issuer=self._issuer,
                # Times are judged below, by the clock that everything else here goes by.
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidAudienceError:
            raise TokenRefused(found="it was issued for another service") from None
        except jwt.InvalidIssuerError:
            raise TokenRefused(found="another issuer made it") from None
        except jwt.MissingRequiredClaimError as error:
            raise TokenRefused(found=f"it has no {error.claim}") from None
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            raise TokenRefused(found="its signature does not fit the issuer's keys") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise TokenRefused(found="it cannot be read") from None
        self._check_times(claims)
        return TokenClaims(
            subject=_printable(claims["sub"]),
            org_id=_one(claims.get(self._org_claim)),
            role=_one(claims.get(self._role_claim)),
        )

    def origins(self) -> tuple[str, ...]:
        try:
            known = self._current()
        except IssuerUnavailable:
            return (_origin(self._issuer),)
        addresses = [self._issuer, *([known.token_endpoint] if known.token_endpoint else [])]
        return tuple(dict.fromkeys(map(_origin, addresses)))

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._clock().timestamp()
        if now >= _seconds(claims, "exp") + LEEWAY:
            raise TokenRefused(found="it has ended")
        if "nbf" in claims and now < _seconds(claims, "nbf") - LEEWAY:
            raise TokenRefused(found="it is not valid yet")

    # ------------------------------------------------------------------------------------------ the issuer's keys

    def _key(self, header: Mapping[str, Any]) -> _Key:
        """The issuer's key that *header* names. A key it does not have yet is asked for, at most once a minute."""
        found = _pick(self._current().keys, header.get("kid"))
        if found is None:
            found = _pick(self._current(renew=True).keys, header.get("kid"))
        if found is None:
            raise TokenRefused(found="the issuer has no such key")
        if header.get("alg") not in found.algorithms:
            raise TokenRefused(found="it is not signed as the issuer's key is used")
        return found

    def _current(self, *, renew: bool = False) -> _Issuer:
        """What is known of the issuer. Raises: IssuerUnavailable, where nothing is known that may still be used."""
        with self._lock:  # who comes meanwhile waits for the one answer instead of asking too
            now, known = self._clock(), self._known
            stale = known is None or now - known.at >= FRESH
            if (stale or renew) and (self._asked_at is None or now - self._asked_at >= PAUSE):
                self._asked_at = now
                try:
                    known = self._known = self._ask(now)
                except (OSError, ValueError, HTTPException) as error:
                    log.warning("the OIDC issuer cannot be used: %s", error)
            if known is None or now - known.at >= KEPT:
                raise IssuerUnavailable
            return known

    def _ask(self, now: datetime) -> _Issuer:
        """Raises: OSError, HTTPException, ValueError."""
        discovery = self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if discovery.get("issuer") != self._issuer:  # Discovery 1.0, 4.3
            raise ValueError("its discovery document names another issuer than TRUST_OIDC_ISSUER")
        endpoint = discovery.get("token_endpoint")
        keys = self._fetch(discovery.get("jwks_uri")).get("keys")
        if not isinstance(keys, list):
            raise ValueError("its key set holds no list of keys")
        usable = {str(one.get("kid", "")): key for one in keys if isinstance(one, dict) and (key := _usable(one))}
        return _Issuer(now, endpoint if isinstance(endpoint, str) else None, usable)

    def _fetch(self, url: object) -> dict[str, Any]:
        """A JSON object from the issuer. No redirect is followed, and nothing but the issuer's own scheme."""
        if not isinstance(url, str) or urlsplit(url).scheme not in ("https", urlsplit(self._issuer).scheme):
            raise ValueError("an address in its discovery document is not https")
        request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - checked above
        with _opener.open(request, timeout=TIMEOUT) as response:
            body = response.read(DOCUMENT_MAX + 1)
        if len(body) > DOCUMENT_MAX:
            raise ValueError("its answer is too long")
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError("its answer is no JSON object")
        return found


_LATEST: Final = 253_402_300_800  # seconds since 1970: the year 10000


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_opener: Final = urllib.request.build_opener(_NoRedirect)


def _header(token: str) -> Mapping[str, Any]:
    """The token's header, believed in nothing but which key to try."""
    if len(token) > TOKEN_MAX:
        raise TokenRefused(found="it is too long")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise TokenRefused(found="it cannot be read") from None
    if "crit" in header:  # RFC 7515, 4.1.11: nothing critical is understood here
        raise TokenRefused(found="it cannot be read")
    return header


def _pick(keys: Mapping[str, _Key], kid: object) -> _Key | None:
    if kid is None and len(keys) == 1:
        return next(iter(keys.values()))
    return keys.get(kid) if isinstance(kid, str) else None


def _usable(one: Mapping[str, Any]) -> _Key | None:
    """A key of the set with its algorithms; None for a secret, an encryption key, and what is weak or unknown."""
    if one.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(dict(one)).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    match key:
        case rsa.RSAPublicKey() if key.key_size >= RSA_BITS_MIN:
            kind = "RSA"
        case ec.EllipticCurvePublicKey():
            kind = _CURVES.get(key.curve.name, "")
        case ed25519.Ed25519PublicKey():
            kind = "Ed25519"
        case _:
            return None
    algorithms = _ALGORITHMS.get(kind, ())
    named = one.get("alg")
    chosen = [alg for alg in algorithms if named in (None, alg)]
    return _Key(key, chosen) if chosen else None


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519, 2). Python reads NaN too, of which nothing is later, infinity, and numbers too long
    for a float."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LATEST:
        raise TokenRefused(found=f"its {name} is no time")
    return float(value)


def _one(value: object) -> str | None:
    """A claim that names one thing: text, or a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else None


def _printable(subject: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in subject[:128])


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
