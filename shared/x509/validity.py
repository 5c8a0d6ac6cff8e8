"""When a certificate is valid."""

from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from shared.errors import CertificateExpired, CertificateNotYetValid

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def check_validity(cert: x509.Certificate, *, at: datetime) -> None:
    """Refuse *cert* unless *at* (aware) is in its period, both ends included, in whole seconds (RFC 5280, 4.1.2.5).

    Raises: CertificateNotYetValid, CertificateExpired; ValueError where *at* is naive, because Python would take it
    for local time."""
    if at.tzinfo is None:
        raise ValueError("a time without its zone cannot be compared with a certificate's")
    second = at.astimezone(UTC).replace(microsecond=0)
    if second < cert.not_valid_before_utc:
        raise CertificateNotYetValid(cert=cert, time=shown_time(cert.not_valid_before_utc))
    if second > cert.not_valid_after_utc:
        raise CertificateExpired(cert=cert, time=shown_time(cert.not_valid_after_utc))


def shown_time(moment: datetime) -> str:
    """`16 Dec 2026, 09:30 UTC`, whatever the locale (strftime's month names follow it)."""
    utc = moment.astimezone(UTC)
    return f"{utc.day} {_MONTHS[utc.month - 1]} {utc.year}, {utc.hour:02}:{utc.minute:02} UTC"
