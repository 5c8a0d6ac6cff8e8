"""The deny list: the look-up ids under which entries are stored, and what must be looked up for a client.

An entry names a certificate by its fingerprint, by its issuer and serial number, or by its public key; or a device by
its identity (docs/rules.md, "Deny list").
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final

import msgspec

from shared.validation.ca import NAME_DIGITS
from shared.validation.names import DeviceName
from shared.x509.certificate import Certificate

_IDENTITY: Final = "i-"  # begins the look-up ids of devices and gateways
_ISSUER_DIGITS: Final = 32  # hexadecimal digits of an issuer's digest in the look-up id of a serial number


class DenyListEntry(msgspec.Struct, frozen=True):
    """An entry that a look-up found. *issuer_key_hash* is set for an entry of a serial number."""

    since: datetime
    issuer_key_hash: str | None = None


class CertificateIds(msgspec.Struct, frozen=True, array_like=True):
    """What a certificate is looked up by, and its issuer. Octets take half of the memory of hexadecimal digits.

    Args:
        issuer: the first 16 octets of the digest of the issuer's name.
        serial: the serial number in hexadecimal digits.
        key: SHA-256 of SubjectPublicKeyInfo.
        certificate: each fingerprint.
    """

    issuer: bytes
    serial: str
    key: bytes
    certificate: tuple[bytes, ...]

    @classmethod
    def of(cls, cert: Certificate) -> "CertificateIds":
        """Return the ids of *cert*."""
        return cls(
            bytes.fromhex(cert.issuer.digest[:_ISSUER_DIGITS]),
            f"{cert.serial_number:x}",
            bytes.fromhex(cert.key_hash),
            tuple(map(bytes.fromhex, cert.fingerprints)),
        )

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints in hexadecimal digits."""
        return tuple(sha256.hex() for sha256 in self.certificate)

    @property
    def look_ups(self) -> list[str]:
        """Every look-up id of an entry that may mean the certificate."""
        look_ups = [fingerprint_id(sha256.hex()) for sha256 in self.certificate]
        look_ups += (issuer_serial_id(self.issuer.hex(), self.serial), key_id(self.key.hex()))
        return look_ups

    @property
    def issuer_name(self) -> str:
        """The digits with which the id of each CA with the issuer's name begins."""
        return self.issuer.hex()[:NAME_DIGITS]


class Questions(msgspec.Struct, frozen=True):
    """What must be looked up to judge a client: CAs by subject name, deny-list entries by look-up id.

    The name of the leaf's issuer is first."""

    issuer_names: tuple[str, ...]
    denials: tuple[str, ...]


def questions(certificates: Iterable[CertificateIds], device: DeviceName | None) -> Questions:
    """Return everything that must be looked up.

    Everything follows from what was presented, so one batched read is enough.

    Args:
        certificates: of each certificate that was presented, leaf first.
        device: the device in question (`Presented.device`)."""
    names: dict[str, None] = {}
    denials: list[str] = []
    for ids in certificates:
        names[ids.issuer_name] = None
        denials += ids.look_ups
    if device is not None:
        denials.append(identity_id(device))
    return Questions(tuple(names), tuple(denials))


def certificate_ids(cert: Certificate) -> list[str]:
    """Return every look-up id of an entry that may mean *cert*."""
    return CertificateIds.of(cert).look_ups


def find_denied_at(
    cert: Certificate, entries: Collection[DenyListEntry], cas: Iterable[Certificate]
) -> datetime | None:
    """Return when the first of *entries* that means the registered CA *cert* was made, or None.

    Args:
        entries: those that a look-up of `certificate_ids` found.
        cas: the registered CAs with the name of the issuer of *cert*, which may be *cert* itself. An entry of a serial
            number counts for the CA that signed the certificate.
    """
    keys = {entry.issuer_key_hash for entry in entries if entry.issuer_key_hash is not None}
    issuers = {ca.key_hash for ca in cas if ca.key_hash in keys and cert.is_signed_by(ca)} if keys else set()
    return min(
        (entry.since for entry in entries if entry.issuer_key_hash is None or entry.issuer_key_hash in issuers),
        default=None,
    )


def can_mean_certificate(look_up: str) -> bool:
    """Return whether *look_up* may find entries of certificates. Entries of devices mean no certificate."""
    return not look_up.startswith(_IDENTITY)


def fingerprint_id(sha256: str) -> str:
    """Return the look-up id of the certificate whose SHA-256, in hexadecimal, is *sha256*."""
    return f"f-{sha256}"


def key_id(sha256: str) -> str:
    """Return the look-up id of the public key whose SubjectPublicKeyInfo has that SHA-256, in hexadecimal."""
    return f"k-{sha256}"


def serial_id(cert: Certificate) -> str:
    """Return the look-up id of the issuer's name and the serial number of *cert*."""
    return issuer_serial_id(cert.issuer.digest, f"{cert.serial_number:x}")


def issuer_serial_id(issuer_digest: str, serial: str) -> str:
    """Return the look-up id of an issuer's name, by its digest, and a serial number in hexadecimal digits."""
    return f"s-{issuer_digest[:_ISSUER_DIGITS]}-{serial}"


def identity_id(device: DeviceName) -> str:
    """Return the look-up id of a device or gateway."""
    return f"{_IDENTITY}{device}"
