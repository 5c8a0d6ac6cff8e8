"""The fields of a certificate, of a revision and of a warning, as replies of several things show them.

No view but `functions.api.edges.HostKeyView`, for TLS edges, has a field for a private key; none has one for a
passphrase or a token.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from functions.web.contract import View
from shared.records import Revision
from shared.validation.notices import Notice
from shared.x509.certificate import Certificate
from shared.x509.public_keys import describe_key


class Warned(View, frozen=True, kw_only=True):
    """A warning: accepted, and yet worth saying."""

    code: str
    message: str


def warnings_view(notices: Sequence[Notice]) -> tuple[Warned, ...]:
    """Return the warnings as a reply shows them."""
    return tuple(Warned(code=notice.code, message=notice.message) for notice in notices)


class CertificateView(View, frozen=True, kw_only=True):
    """The fields of a certificate that people ask for. Times are UTC, both ends included."""

    subject: str
    issuer: str
    serial_number: str  # hex
    not_before: datetime
    not_after: datetime
    fingerprint_sha256: str = msgspec.field(name="fingerprintSha256")  # hex
    key_algorithm: str


def certificate_fields(cert: Certificate) -> dict[str, Any]:
    """Return the values of `CertificateView`'s fields, for the views that have more."""
    return {
        "subject": cert.subject_text,
        "issuer": cert.issuer.text,
        "serial_number": f"{cert.serial_number:x}",
        "not_before": cert.not_before,
        "not_after": cert.not_after,
        "fingerprint_sha256": cert.fingerprint,
        "key_algorithm": describe_key(cert.public_key),
    }


def certificate_view(cert: Certificate) -> CertificateView:
    """Return the certificate as a reply shows it."""
    return CertificateView(**certificate_fields(cert))


class Stamped(View, frozen=True, kw_only=True):
    """Base of the views of stored things: who made and changed them, and when."""

    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    version: str


def stamp_fields(revision: Revision) -> dict[str, Any]:
    """Return the values of `Stamped`'s fields."""
    return {
        "created_at": revision.created_at,
        "created_by": revision.created_by,
        "updated_at": revision.updated_at,
        "updated_by": revision.updated_by,
        "version": revision.version,
    }


@lru_cache(maxsize=2048)
def parse_stored(der: bytes) -> Certificate:
    """Parse a stored certificate. Such a certificate never changes, so the result is cached."""
    return Certificate.from_der(der)


def encode_pem(*certs: Certificate) -> str:
    """Return the certificates as PEM, one after the other."""
    return "".join(cert.pem for cert in certs)
