"""The fast way beside OpenSSL: both must give the same answer on every plain path.

The product judges a plain path by its signatures alone. Tests that judge chains pass them through here as well, so that
each of their certificates, good or bad, is also a case of this comparison.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from shared.errors import Refused
from shared.x509 import openssl_judge
from shared.x509.certificate import Certificate, CertificationPath
from shared.x509.path import PathBuilder, _check_cas, _check_keys
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
    for path in islice(builder.paths(), PATHS_MAX):
        try:
            _check_keys(path, frozenset())
            _check_cas(path)
        except Refused:
            continue
        if all(cert.is_plain for cert in path):
            compared += 1
            plain, openssl = is_plainly_signed(path), openssl_accepts(path)
            assert plain == openssl, f"{path}: plain says {plain}, OpenSSL {openssl}"
    return compared


def openssl_accepts(path: CertificationPath) -> bool:
    """Whether OpenSSL objects to nothing in *path*, and each signature that it does not see verifies."""
    pieces = openssl_judge.split(path)
    return all(cert.is_signed_by(ca) for cert, ca in openssl_judge.gaps(pieces)) and not any(map(_judge, pieces))
