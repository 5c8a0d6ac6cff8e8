"""Two caches of certificates that are used at many connections (docs/decisions/0091).

An organization's CAs take part in every connection, and the devices of a fleet send the same few intermediates. A cache
holds only what follows from the octets of a certificate: its fields, whether its key is weak, and which keys verify its
signature. The key of an entry is these octets, so an entry cannot become stale or be returned for another certificate.
No cache holds whether a CA is registered, active, denied or valid now, and none holds a device's leaf.

Anyone who can connect fills the cache of intermediates, so the CAs of organizations have a cache of their own. Both are
bounded in the memory that their certificates take. The certificate that was not used for longest gives way.
"""

from collections import OrderedDict
from threading import Lock
from typing import Final

from shared.x509.certificate import Certificate
from shared.x509.der import count_elements

REGISTERED_OCTETS: Final = 64 * 2**20  # of memory for CAs of organizations: 5,000 ordinary ones
INTERMEDIATES_OCTETS: Final = 16 * 2**20  # for certificates that devices sent after their leaves
BYTES_MAX: Final = 16 * 1024  # octets of a certificate that is kept, as DER: as much as a CA may have

# What a certificate takes in memory, with its form for OpenSSL: an ordinary CA has 80 elements
_BASE: Final = 4096
_OF_AN_OCTET: Final = 3
_OF_AN_ELEMENT: Final = 300


class CertificateCache:
    """Certificates by their DER, at most *octets* of memory in all. Safe for threads."""

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._lock = Lock()
        self._certs: OrderedDict[bytes, tuple[Certificate, int]] = OrderedDict()
        self._taken = 0

    def __len__(self) -> int:
        return len(self._certs)

    def __contains__(self, encoded: bytes) -> bool:
        return encoded in self._certs

    @property
    def taken(self) -> int:
        """The memory that the certificates take, in octets, as it is counted."""
        return self._taken

    def read(self, encoded: bytes) -> Certificate:
        """Return the certificate whose DER is *encoded*, kept or read. Raises: CertificateMalformed."""
        with self._lock:
            kept = self._certs.get(encoded)
            if kept is not None:
                self._certs.move_to_end(encoded)
                return kept[0]
        cert = Certificate.from_der(encoded)
        if len(encoded) > BYTES_MAX:
            return cert
        size = _BASE + _OF_AN_OCTET * len(encoded) + _OF_AN_ELEMENT * count_elements(encoded, len(encoded))
        with self._lock:
            kept = self._certs.setdefault(encoded, (cert, size))
            if kept[0] is cert:
                self._taken += size
            while self._taken > self._octets:
                _, (_, oldest) = self._certs.popitem(last=False)
                self._taken -= oldest
        return kept[0]

    def clear(self) -> None:
        """Forget every certificate."""
        with self._lock:
            self._certs.clear()
            self._taken = 0


_registered: Final = CertificateCache(REGISTERED_OCTETS)
_intermediates: Final = CertificateCache(INTERMEDIATES_OCTETS)


def read_registered(encoded: bytes) -> Certificate:
    """Return a CA certificate that an organization registered. Raises: CertificateMalformed."""
    return _registered.read(encoded)


def read_intermediate(encoded: bytes) -> Certificate:
    """Return a certificate that a device sent after its leaf. Raises: CertificateMalformed."""
    return _intermediates.read(encoded)
