"""What a process keeps of the certificates that come again and again.

An organization's CAs take part in every connection, and the devices of a fleet send the same few intermediates. What is
kept follows from the octets alone: the parsed fields, whether the key is weak, which keys verify the signature. It is
found under the very same octets only, so it cannot go stale or be taken for another certificate. Whether a CA is
registered, active or denied, and whether it is valid now, is never kept. A device's leaf is never kept either.

There are two caches, because strangers fill one of them: what devices send cannot push out what organizations
registered. Both are bounded in number and in the size of their entries.
"""

from functools import lru_cache
from typing import Final

from shared.x509.certificate import Certificate

REGISTERED_MAX: Final = 1024  # CAs of organizations
INTERMEDIATES_MAX: Final = 256  # what devices sent beside their leaves
BYTES_MAX: Final = 4096  # of one entry as DER: up to 35 KiB of memory each, 45 MiB in all


def read_registered(encoded: bytes) -> Certificate:
    """Return a CA certificate that an organization registered. Raises: CertificateMalformed."""
    return _registered(encoded) if len(encoded) <= BYTES_MAX else Certificate.from_der(encoded)


def read_intermediate(encoded: bytes) -> Certificate:
    """Return a certificate that a device sent after its leaf. Raises: CertificateMalformed."""
    return _intermediates(encoded) if len(encoded) <= BYTES_MAX else Certificate.from_der(encoded)


_registered = lru_cache(maxsize=REGISTERED_MAX)(Certificate.from_der)
_intermediates = lru_cache(maxsize=INTERMEDIATES_MAX)(Certificate.from_der)
