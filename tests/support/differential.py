"""The fast way beside OpenSSL: both must give the same answer on every plain path.

The product judges a plain path by its signatures alone. Tests that judge chains pass them through here as well, so that
each of their certificates, good or bad, is also a case of this comparison.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from typing import Final

from shared.errors import ChainTooCostly, Refused
from shared.x509 import openssl_judge
from shared.x509.certificate import Certificate, CertificationPath
from shared.x509.path import PathBuilder, _check_cas
from shared.x509.plain import is_plainly_signed

PATHS_MAX: Final = 64  # candidate paths compared for one leaf

_judge: Final = openssl_judge.judge  # tests count what the product asks


def compare(
    leaf: Certificate,
    sent: Sequence[Certificate],
    anchors: Sequence[Certificate],
    inactive: Sequence[Certificate] = (),
) -> int:
    """Compare both judgements on each candidate path. Returns on how many plain paths they agreed.

    A path counts if everything before its signatures is good, as in `path.verify`."""
    builder = PathBuilder(leaf, sent, anchors, inactive)
    compared = 0
    for path in islice(_affordable(builder.paths()), PATHS_MAX):
        try:
            builder.check_keys(path, frozenset())
            _check_cas(path)
        except Refused:
            continue
        if all(cert.is_plain for cert in path):
            compared += 1
            plain, openssl = is_plainly_signed(path), openssl_accepts(path)
            assert plain == openssl or is_explained(path), f"{path}: plain says {plain}, OpenSSL {openssl}"
    return compared


def _affordable(paths: Iterator[CertificationPath]) -> Iterator[CertificationPath]:
    """Yield *paths* until the budget of a decision is spent."""
    with suppress(ChainTooCostly):
        yield from paths


def is_explained(path: CertificationPath) -> bool:
    """Whether OpenSSL may judge *path* in another way, for a reason that is known."""
    return _is_odd(path) or _has_other_key_id(path)


def _is_odd(path: CertificationPath) -> bool:
    """Whether OpenSSL may differ on *path* (docs/decisions/0091).

    It may where two certificates have the same issuer name and serial number, or where the leaf's KeyUsage has no bits.
    """
    identifiers = {(cert.issuer.canonical, cert.serial_number) for cert in path}
    return len(identifiers) < len(path) or path[0].key_usage == 0


def _has_other_key_id(path: CertificationPath) -> bool:
    """Whether identifiers of keys differ, which only order candidates here (docs/decisions/0128).

    OpenSSL refuses such a path, or judges another path of the same certificates. `is_plainly_signed` itself verifies
    each signature of the path."""
    return any(not cert.has_key_id_of(ca) for cert, ca in pairwise(path))


def openssl_accepts(path: CertificationPath) -> bool:
    """Whether OpenSSL objects to nothing in *path*, and each signature that it does not see verifies."""
    pieces = openssl_judge.split(path)
    return all(map(_verifies, openssl_judge.gaps(pieces))) and not any(map(_judge, pieces))


def _verifies(link: tuple[Certificate, Certificate]) -> bool:
    """Whether the second certificate's key made the signature on the first, by an algorithm for that kind of key."""
    cert, ca = link
    return cert.signature_algorithm.fits(ca.public_key) and cert.is_signed_by(ca)
