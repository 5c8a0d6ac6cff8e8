"""The names and keys of the targets. They are the same in every process, so that stored inputs stay valid.

Keys are derived from small numbers, so they are no secrets. ECDSA signatures differ from run to run; nothing depends on
them.
"""

from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.support import certs
from tests.support.certs import Issued

ORG: Final = "mtxpd0"
OTHER: Final = "other1"
DOMAIN: Final = "example.com"
HOST: Final = f"{ORG}.messaging.{DOMAIN}"
DEVICE: Final = "d:thermo:42"
CLIENT_ID: Final = f"d:{ORG}:thermo:42"
PASSPHRASE: Final = "secret"
BUCKET: Final = "trust-uploads"


def key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


@cache
def edwards() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@cache
def root() -> Issued:
    return certs.ca("Fuzz Root", private=key(1001), serial=1)


@cache
def intermediate() -> Issued:
    return certs.ca("Fuzz Intermediate", root(), private=key(1002), serial=2)


@cache
def edwards_root() -> Issued:
    """Return a CA whose signatures are deterministic, so that a target can sign the fuzzer's input."""
    return certs.ca("Fuzz Edwards", private=edwards(), serial=3)


@cache
def device() -> Issued:
    return certs.leaf(DEVICE, intermediate(), private=key(1003), serial=4)


@cache
def server() -> Issued:
    return certs.server(HOST, root(), private=key(1004))
