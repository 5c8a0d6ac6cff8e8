"""Caches of parsed certificates, for the certificates that many connections use.

An organization's CAs take part in every connection, and the devices of a fleet send the same few intermediates. An
entry follows from the octets of its certificate alone: the parsed fields, whether the key is weak, which keys verify
the signature. The key of an entry is the whole certificate, so an entry cannot become outdated or belong to another
certificate. Whether a CA is registered, active, denied or valid now is never cached, nor is a device's leaf.

There are two caches, because any device can fill the cache of intermediates. Certificates from devices must not evict
the CAs that organizations registered. Both caches are bounded in number and in the size of their entries.
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
