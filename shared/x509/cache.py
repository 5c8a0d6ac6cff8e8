"""Two caches of certificates that are used at many connections (docs/decisions/0091).

An organization's CAs take part in every connection, and the devices of a fleet send the same few intermediates. A cache
holds only what follows from the octets of a certificate: its fields, whether its key is weak, and which keys verify its
signature. The key of an entry is these octets, so an entry cannot become stale or be returned for another certificate.
No cache holds whether a CA is registered, active, denied or valid now, and none holds a device's leaf.

Anyone who can connect fills the cache of intermediates, so the CAs of organizations have a cache of their own. Both are
bounded in the number of entries and in the size of an entry.
"""

from functools import lru_cache
from typing import Final

from shared.x509.certificate import Certificate

REGISTERED_MAX: Final = 1024  # CAs of organizations
INTERMEDIATES_MAX: Final = 256  # certificates that devices sent after their leaves
# Octets of a certificate as DER. In memory an ordinary CA takes 7 KiB, a hostile certificate of this size 190 KiB.
BYTES_MAX: Final = 4096


def read_registered(encoded: bytes) -> Certificate:
    """Return a CA certificate that an organization registered. Raises: CertificateMalformed."""
    return _registered(encoded) if len(encoded) <= BYTES_MAX else Certificate.from_der(encoded)


def read_intermediate(encoded: bytes) -> Certificate:
    """Return a certificate that a device sent after its leaf. Raises: CertificateMalformed."""
    return _intermediates(encoded) if len(encoded) <= BYTES_MAX else Certificate.from_der(encoded)


_registered = lru_cache(maxsize=REGISTERED_MAX)(Certificate.from_der)
_intermediates = lru_cache(maxsize=INTERMEDIATES_MAX)(Certificate.from_der)
