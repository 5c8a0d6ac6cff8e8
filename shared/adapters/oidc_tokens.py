"""TokenVerifier for the tokens of one OpenID Connect issuer.

Keys come only from the issuer's discovery document and key set, fetched from the configured URL. URLs and keys inside a
token (`jku`, `x5u`, `jwk`, `x5c`) are ignored. The algorithm must be asymmetric and fit the issuer's key (RFC 8725,
3.1).

Sources: OpenID Connect Core 1.0; OpenID Connect Discovery 1.0; RFC 7515 (JWS), RFC 7517 (JWK), RFC 7519 (JWT), RFC 8725
(best practices for JWT).
"""

import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from shared.errors import IssuerUnavailable, TokenRefused
from shared.ports import Clock, TokenClaims
from shared.text import printable

log = logging.getLogger(__name__)

LEEWAY: Final = 60  # seconds that the issuer's clock may differ
TOKEN_MAX: Final = 16 * 1024  # characters
DOCUMENT_MAX: Final = 512 * 1024  # bytes of a discovery document or key set
PAUSE: Final = timedelta(minutes=1)  # between two requests to the issuer
FRESH: Final = timedelta(minutes=10)  # after this time keys are fetched again, so that withdrawn keys stop working
KEPT: Final = timedelta(hours=1)  # after this time keys are not used any more, even if the issuer does not answer
TIMEOUT: Final = 5  # seconds, of one request
WAITING: Final = 4  # callers that may wait for another caller's request
RSA_BITS_MIN: Final = 2048

_ALGORITHMS: Final[Mapping[str, Sequence[str]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class _IssuerKey(msgspec.Struct, frozen=True):
    """A public key of the issuer, and the algorithms that are allowed with it (JWA names)."""

    key: Any
    algorithms: Sequence[str]


class _Moment(NamedTuple):
    """A moment by the clock, which may be set back, and by a counter, which may pause while the machine is suspended.

    Args:
        time: by the clock.
        seconds: by the counter.
    """

    time: datetime
    seconds: float

    def since(self, earlier: "_Moment") -> timedelta:
        """Return how much time has passed since *earlier*: what the one or the other shows, whichever is longer."""
        return max(self.time - earlier.time, timedelta(seconds=self.seconds - earlier.seconds))


@dataclass(frozen=True)
class _Issuer:
    """The issuer's metadata.

    Args:
        fetched_at: the moment of the request.
        token_endpoint: the endpoint's URL, or None.
        keys: keys by key id (`kid`); the key id of a key without one is "".
    """

    fetched_at: "_Moment"
    token_endpoint: str | None
    keys: Mapping[str, _IssuerKey] = field(repr=False)


class OidcTokens:
    """A verifier for the tokens of one issuer, see `shared.ports.TokenVerifier`.

    Args:
        issuer: the issuer's URL, the expected `iss` claim.
        audience: the expected `aud` claim.
        org_claim: the name of the claim with the orgId.
        role_claim: the name of the claim with the role.
        clock: the clock by which tokens expire.
        seconds: returns seconds that no change of the clock affects; keys age by them too.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        org_claim: str,
        role_claim: str,
        clock: Clock,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store the arguments. No request is made."""
        self._issuer = issuer
        self._audience = audience
        self._org_claim = org_claim
        self._role_claim = role_claim
        self._clock = clock
        self._seconds = seconds
        self._requesting = threading.Lock()
        self._waiting = threading.Semaphore(WAITING)
        self._requested_at: _Moment | None = None
        self._metadata: _Issuer | None = None

    def verify(self, token: str) -> TokenClaims:
        """Verify the signature, issuer, audience and times of *token*, and return its claims.

        Raises: TokenRefused, IssuerUnavailable.
        """
        header = _read_header(token)
        key = self._get_key(header)
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                audience=self._audience,
                issuer=self._issuer,
                # Times are checked below, with the service's clock.
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
            subject=_to_printable(claims["sub"]),
            org_id=_get_single(claims.get(self._org_claim)),
            role=_get_single(claims.get(self._role_claim)),
            issued_at=datetime.fromtimestamp(_read_seconds(claims, "iat"), UTC) if "iat" in claims else None,
        )

    def claimed_org(self, token: str) -> str | None:
        """Return the orgId that *token* claims, not verified. Never raises."""
        if len(token) > TOKEN_MAX:
            return None
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None
        return _get_single(claims.get(self._org_claim))

    def origins(self) -> tuple[str, ...]:
        """Return the origins that a page connects to during the sign-in, without duplicates."""
        try:
            metadata = self._get_metadata()
        except IssuerUnavailable:
            return (_origin(self._issuer),)
        urls = [self._issuer, *([metadata.token_endpoint] if metadata.token_endpoint else [])]
        return tuple(dict.fromkeys(map(_origin, urls)))

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._clock().timestamp()
        if now >= _read_seconds(claims, "exp") + LEEWAY:
            raise TokenRefused(found="it has ended")
        if "nbf" in claims and now < _read_seconds(claims, "nbf") - LEEWAY:
            raise TokenRefused(found="it is not valid yet")

    # ------------------------------------------------------------------------------------------ the issuer's keys

    def _get_key(self, header: Mapping[str, Any]) -> _IssuerKey:
        """Return the issuer's key that *header* names; an unknown key is requested, at most once a minute.

        Raises: TokenRefused, IssuerUnavailable.
        """
        key = _find_key(self._get_metadata().keys, header.get("kid"))
        if key is None:
            key = _find_key(self._get_metadata(renew=True).keys, header.get("kid"))
        if key is None:
            raise TokenRefused(found="the issuer has no such key")
        if header.get("alg") not in key.algorithms:
            raise TokenRefused(found="it is not signed as the issuer's key is used")
        return key

    def _get_metadata(self, *, renew: bool = False) -> _Issuer:
        """Return the issuer's metadata, from the cache or from the issuer.

        Raises: IssuerUnavailable, if there is no metadata that may still be used.
        """
        now, metadata = _Moment(self._clock(), self._seconds()), self._metadata
        is_stale = metadata is None or now.since(metadata.fetched_at) >= FRESH
        if is_stale or renew:
            if self._requesting.acquire(blocking=False):
                try:
                    self._renew_metadata(now)
                finally:
                    self._requesting.release()
            elif renew or metadata is None or now.since(metadata.fetched_at) >= KEPT:
                self._wait_for_request()
            metadata = self._metadata
        if metadata is None or now.since(metadata.fetched_at) >= KEPT:
            raise IssuerUnavailable
        return metadata

    def _renew_metadata(self, now: _Moment) -> None:
        """Fetch the metadata, unless it was requested within the last minute."""
        if self._requested_at is not None and now.since(self._requested_at) < PAUSE:
            return
        self._requested_at = now
        try:
            self._metadata = self._fetch_metadata(now)
        except (OSError, ValueError, HTTPException) as error:
            log.warning("the OIDC issuer cannot be used: %s", error)

    def _wait_for_request(self) -> None:
        """Wait for the request of another caller.

        A few callers may wait: the issuer may be silent for seconds, and anybody can send tokens that need its keys.

        Raises: IssuerUnavailable, if as many wait already.
        """
        if not self._waiting.acquire(blocking=False):
            raise IssuerUnavailable
        try:
            with self._requesting:
                pass
        finally:
            self._waiting.release()

    def _fetch_metadata(self, now: _Moment) -> _Issuer:
        """Fetch the discovery document and the key set.

        Raises: OSError, HTTPException, ValueError.
        """
        discovery = self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if discovery.get("issuer") != self._issuer:  # Discovery 1.0, 4.3
            raise ValueError("its discovery document names another issuer than TRUST_OIDC_ISSUER")
        endpoint = discovery.get("token_endpoint")
        jwks = self._fetch(discovery.get("jwks_uri")).get("keys")
        if not isinstance(jwks, list):
            raise ValueError("its key set contains no list of keys")
        keys = {str(jwk.get("kid", "")): key for jwk in jwks if isinstance(jwk, dict) and (key := _load_key(jwk))}
        return _Issuer(now, endpoint if isinstance(endpoint, str) else None, keys)

    def _fetch(self, url: object) -> dict[str, Any]:
        """Fetch a JSON object from the issuer. The scheme must be https or the issuer's; redirects are not followed.

        Raises: OSError, HTTPException, ValueError.
        """
        if not isinstance(url, str) or urlsplit(url).scheme not in ("https", urlsplit(self._issuer).scheme):
            raise ValueError("a URL in its discovery document is not https")
        request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - checked above
        with _opener.open(request, timeout=TIMEOUT) as response:
            body = response.read(DOCUMENT_MAX + 1)
        if len(body) > DOCUMENT_MAX:
            raise ValueError("its response is too long")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("its response is not a JSON object")
        return document


_SECONDS_MAX: Final = 253_402_300_800  # since 1970: the year 10000


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_opener: Final = urllib.request.build_opener(_NoRedirect)


def _read_header(token: str) -> Mapping[str, Any]:
    """Return the header of *token*. The header is not verified and only selects the key.

    Raises: TokenRefused.
    """
    if len(token) > TOKEN_MAX:
        raise TokenRefused(found="it is too long")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise TokenRefused(found="it cannot be read") from None
    if "crit" in header:  # RFC 7515, 4.1.11; this verifier supports no critical extension
        raise TokenRefused(found="it cannot be read")
    return header


def _find_key(keys: Mapping[str, _IssuerKey], kid: object) -> _IssuerKey | None:
    if kid is None and len(keys) == 1:
        return next(iter(keys.values()))
    return keys.get(kid) if isinstance(kid, str) else None


def _load_key(jwk: Mapping[str, Any]) -> _IssuerKey | None:
    """Load a key of the key set; None for a symmetric key, an encryption key, and a weak or unknown key."""
    if jwk.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(dict(jwk)).key
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
    algorithm = jwk.get("alg")
    algorithms = [name for name in _ALGORITHMS.get(kind, ()) if algorithm in (None, name)]
    return _IssuerKey(key, algorithms) if algorithms else None


def _read_seconds(claims: Mapping[str, Any], name: str) -> float:
    """Return a claim that is a NumericDate (RFC 7519, 2), in seconds since 1970.

    Python's JSON parser also accepts NaN, infinity and integers that do not fit into a float.

    Raises: TokenRefused.
    """
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _SECONDS_MAX:
        raise TokenRefused(found=f"its {name} is no time")
    return float(value)


def _get_single(value: object) -> str | None:
    """Return the text of a claim with one value: a string, or a list of one string."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else None


def _to_printable(subject: str) -> str:
    return printable(subject, 128)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
