"""The sessions that HAProxy's table `sessions` lists, and which of them a withdrawal concerns.

The callout (verify_client.lua) enters each accepted session under a key that holds what decisions compare. HAProxy
keeps the entry as long as the session exists.
"""

from dataclasses import dataclass
from typing import Any, Final

from edge.feed import WithdrawalEntry

_DIGITS: Final = 16  # of each fingerprint in a key; a key has at most 999 characters
_IS_SHORTENED: Final = "*"  # the last digest of a path that was too long for the table
_OF_CERTIFICATES: Final = ("ca", "fingerprint", "serial")
_KINDS: Final = ("org", "identity", *_OF_CERTIFICATES)


@dataclass(frozen=True)
class RegisteredSession:
    """An entry of the table `sessions`. Fingerprints are SHA-256, the first 16 hex digits.

    Args:
        source: the address of the connection, `address:port`: the device's, or a load balancer's.
        org: the orgId.
        identity: the device's identity, `class:type:device`, or "-".
        ca: the id of the CA certificate, or "-".
        leaf: the fingerprints of the device's certificate.
        serial: the serial number of the device's certificate in hex, or "-".
        ends: the expiry of the certificates in seconds since 1970; 0 without certificates.
        via: the fingerprints of the other certificates that the device sent.
        keys: the key digests of the certificates of the path, the device's first (docs/api.md).
        serials: the serial digests of the same certificates. The trust anchor's may be empty.
        server_name: the server name that the device sent; empty if unknown.
        basis: a text of the verdict that only the functions read; empty if unknown.
        is_complete: whether all digests of the path are known. An earlier callout registered no digests.
    """

    source: str
    org: str
    identity: str
    ca: str
    leaf: tuple[str, ...]
    serial: str
    ends: int
    via: tuple[str, ...]
    keys: tuple[str, ...] = ()
    serials: tuple[str, ...] = ()
    server_name: str = ""
    basis: str = ""
    is_complete: bool = False

    @classmethod
    def parse(cls, key: str) -> "RegisteredSession | None":
        """Parse a key of the table, or return None for a key of another form.

        The callout of the version before writes the first eight parts only.
        """
        parts = key.split("|")
        if len(parts) not in (8, 12) or not parts[6].isdigit():
            return None
        source, org, identity, ca, leaf, serial, ends, via = parts[:8]
        keys_text, serials_text, server_name, basis = parts[8:] or ("", "", "", "")
        keys = keys_text.split(",") if keys_text else []
        serials = serials_text.split(",") if serials_text else []
        is_complete = ca == "-" or (bool(keys) and _IS_SHORTENED not in keys)
        return cls(
            source,
            org,
            identity,
            ca,
            _split(leaf),
            serial,
            int(ends),
            _split(via),
            tuple(digest for digest in keys if digest != _IS_SHORTENED),
            tuple(digest for digest in serials if digest != _IS_SHORTENED),
            server_name,
            basis,
            is_complete,
        )

    @property
    def is_shortened(self) -> bool:
        """Whether the path was too long for the table."""
        return bool(self.keys) and not self.is_complete

    def depends_on(self, withdrawal: WithdrawalEntry) -> bool:
        """Return whether the session must end after *withdrawal*, as far as the edge can compare."""
        if self.org != withdrawal.org:
            return False
        if withdrawal.kind in _OF_CERTIFICATES and (
            (withdrawal.key_digest and withdrawal.key_digest in self.keys)
            or (withdrawal.serial_digest and withdrawal.serial_digest in self.serials)
        ):
            return True
        value = withdrawal.value
        match withdrawal.kind:
            case "org":
                return True
            case "identity":
                return self.identity == value
            case "ca":
                return self._has_ca(value.partition("-")[2])
            case "fingerprint":
                return value[:_DIGITS] in self.leaf or self._has_ca(value)
            case "serial":
                # The serial number is that of the device's certificate or of an intermediate. Serial numbers of
                # intermediates are not in the table.
                ca, _, serial = value.partition(":")
                return self._has_ca(ca.partition("-")[2]) and (
                    _parse_hex(self.serial) == _parse_hex(serial) or bool(self.via)
                )
        return False

    def may_depend_on(self, withdrawal: WithdrawalEntry) -> bool:
        """Return whether the functions must be asked about the session after *withdrawal*.

        That is so also where the edge cannot compare: the kind is unknown, or the session has not all digests.
        """
        if self.org != withdrawal.org:
            return False
        return withdrawal.kind not in _KINDS or self.depends_on(withdrawal) or self._may_have(withdrawal)

    def _may_have(self, withdrawal: WithdrawalEntry) -> bool:
        """Return whether a certificate without a known digest may be the withdrawn one."""
        if self.is_complete or withdrawal.kind not in _OF_CERTIFICATES:
            return False
        if self.is_shortened:
            return True
        # An earlier callout registered all fingerprints and no digests. Keys of intermediates are unknown; the device's
        # own issuer is the CA, whose id begins with its subject.
        if withdrawal.kind == "fingerprint":
            return False
        ca, _, serial = withdrawal.value.partition(":")
        is_of_ca = ca.partition("-")[0] == self.ca.partition("-")[0]
        has_serial = withdrawal.kind != "serial" or _parse_hex(serial) == _parse_hex(self.serial)
        return bool(self.via) or (is_of_ca and has_serial)

    def must_end_unasked(self, withdrawal: WithdrawalEntry) -> bool:
        """Return whether the session ends after *withdrawal* where the functions are of a version that cannot be asked.

        In doubt the session ends: the device connects again and gets a new verdict. The version before decides so about
        a kind that it does not know, and compares the entries of its own callout without digests.
        """
        if self.org != withdrawal.org:
            return False
        if withdrawal.kind in _OF_CERTIFICATES and self.is_shortened:
            return True
        return withdrawal.kind not in _KINDS or self.depends_on(withdrawal)

    def question(self) -> dict[str, Any]:
        """Return the session in the form of `POST /edge/v1/recheck`. Its name there is its address."""
        fields: dict[str, Any] = {
            "session": self.source,
            "org": self.org,
            "keyDigests": self.keys,
            "serialDigests": self.serials,
            "fingerprints": (*self.leaf, *self.via),
            "complete": self.is_complete,
        }
        if self.server_name:
            fields["serverName"] = self.server_name
        if self.basis:
            fields["basis"] = self.basis
        if self.identity != "-":
            fields["identity"] = self.identity
        if self.ca != "-":
            fields["ca"] = self.ca
        return fields

    def _has_ca(self, fingerprint: str) -> bool:
        """Return whether the device's CA, or a certificate that the device sent, has this SHA-256 fingerprint."""
        prefix = fingerprint[:_DIGITS]
        return prefix in (self.ca.partition("-")[2][:_DIGITS], *self.via)


def _split(text: str) -> tuple[str, ...]:
    # An earlier version of the callout wrote longer fingerprints.
    return tuple(fingerprint[:_DIGITS] for fingerprint in text.split(",") if fingerprint)


def _parse_hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return -1
