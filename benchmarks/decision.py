"""Measure one decision in process against its lower limit (the signatures alone) and against alternatives.

The input is PEM bytes: the leaf and the intermediate that a device sends. A decision is the whole use case: the key of
the caller, the batched read from SQLite, the chain, the deny list, the policy and the identity. A device that was seen
before gets its remembered verdict, after the same read. The alternatives judge the chain alone, from the same bytes,
without organizations, weak keys or identities.
"""

import asyncio
import datetime as dt
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Final

from asn1crypto import pem
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import verification
from OpenSSL import crypto
from pyhanko_certvalidator import CertificateValidator, ValidationContext

from benchmarks.fleet import KINDS, Fleet, deployment, make_fleet
from benchmarks.table import STATED, Row, Subject, Target, measure_interleaved, microseconds, ratio
from shared.x509 import cache, distinguished_name

_SEEN: Final = "seen"
_NEVER: Final = "never seen"
_FORGETFUL: Final = "never seen, nothing kept"
_WITH_DENIALS: Final = " with 50 denials"
_SIGNATURES: Final = "signatures"
_PYOPENSSL: Final = "pyOpenSSL store"
_PYOPENSSL_KEPT: Final = "pyOpenSSL store that is kept"
_CRYPTOGRAPHY: Final = "cryptography, relaxed policy"
# Multiples of the cost of the signatures, and of the time of a pyOpenSSL store
_OF_SIGNATURES: Final = {
    ("RSA-2048", _SEEN): Target(at_most=0.8),
    ("RSA-2048", _NEVER): Target(at_most=4.2),
    ("P-256", _SEEN): Target(at_most=0.3),
    ("P-256", _NEVER): Target(at_most=1.8),
}
_OF_PYOPENSSL: Final = {
    ("RSA-2048", _SEEN): Target(below=1),
    ("RSA-2048", _NEVER): Target(at_most=1.2),
    ("P-256", _SEEN): Target(below=1),
    ("P-256", _NEVER): Target(at_most=1.0),
}
_DENIALS: Final = 50


def measure(quick: bool) -> list[Row]:
    return [row for kind in KINDS for row in _rows(kind, quick)]


def _rows(kind: str, quick: bool) -> list[Row]:
    devices = make_fleet(kind, 20 if quick else 300)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        deployment(Path(name) / "plain", devices.root) as plain,
        deployment(Path(name) / "denials", devices.root) as denying,
    ):
        denying.deny(_DENIALS)
        never = plain.forgetful.decisions(devices)
        ways: dict[str, Subject] = {
            _SEEN: _see_all(plain.decisions(devices), devices),
            _NEVER: never,
            _SEEN + _WITH_DENIALS: _see_all(denying.decisions(devices), devices),
            _NEVER + _WITH_DENIALS: denying.forgetful.decisions(devices),
            _FORGETFUL: _clear_caches_before(never),
            _SIGNATURES: _signatures(devices),
            _PYOPENSSL: _pyopenssl(devices),
            _PYOPENSSL_KEPT: _pyopenssl(devices, keep=True),
            _CRYPTOGRAPHY: _cryptography(devices),
        }
        samples = measure_interleaved(ways, rounds=3 if quick else 300, clock=time.process_time)
        slow: dict[str, Subject] = {"pyhanko-certvalidator": _pyhanko(devices)}
        if shutil.which("openssl"):
            slow["openssl verify (process)"] = _process(devices, Path(name))
        slow_samples = measure_interleaved({_NEVER: never, **slow}, rounds=1 if quick else 100)
    return [
        *_compare(kind, samples, [(_SEEN, _SIGNATURES), (_NEVER, _SIGNATURES)], _OF_SIGNATURES),
        *_compare(kind, samples, [(_FORGETFUL, _SIGNATURES)], {}),
        *_compare(
            kind,
            samples,
            [(way + _WITH_DENIALS, way) for way in (_SEEN, _NEVER)],
            {(kind, way + _WITH_DENIALS): Target(at_most=1.1) for way in (_SEEN, _NEVER)},
        ),
        *_compare(kind, samples, [(way, _PYOPENSSL) for way in (_SEEN, _NEVER)], _OF_PYOPENSSL),
        # A store that always holds one CA is stated only: a service of many organizations cannot have such a store
        *_compare(kind, samples, [(way, _PYOPENSSL_KEPT) for way in (_SEEN, _NEVER)], {}),
        *_compare(
            kind,
            samples,
            [(way, _CRYPTOGRAPHY) for way in (_SEEN, _NEVER)],
            {(kind, way): Target(below=1) for way in (_SEEN, _NEVER)},
        ),
        *_compare(kind, slow_samples, [(_NEVER, other) for other in slow], {(kind, _NEVER): Target(below=1)}),
    ]


def _compare(
    kind: str,
    samples: Mapping[str, Sequence[float]],
    pairs: Sequence[tuple[str, str]],
    targets: Mapping[tuple[str, str], Target],
) -> list[Row]:
    figures = microseconds(samples)
    return [
        Row(
            f"one decision, {kind}, {way}",
            "its two signatures alone" if other == _SIGNATURES else other,
            ratio(samples, way, other),
            targets.get((kind, way), STATED),
            figures={name: figures[name] for name in (way, other)},
        )
        for way, other in pairs
    ]


def _see_all(decide: Subject, devices: Fleet) -> Subject:
    """Return *decide* once every device was seen."""
    for _ in devices.devices:
        decide()
    return decide


def _clear_caches_before(decide: Subject) -> Subject:
    """Return *decide* with empty caches, as at the first decision of a process: it verifies root and intermediate."""

    def judge() -> object:
        cache._registered.clear()
        cache._intermediates.clear()
        distinguished_name._kept.clear()
        return decide()

    return judge


# ----------------------------------------------------------------------------------------------------- alternatives
# Each call judges the next device, and raises if the device is refused.


def _signatures(devices: Fleet) -> Subject:
    """Return the lower limit: verify the signatures on leaf and intermediate, which are parsed beforehand."""
    intermediate = devices.intermediate.cert
    above = _check(intermediate, devices.root.cert)
    checks = cycle([_check(issued.cert, intermediate) for issued in devices.devices])

    def check_both() -> None:
        next(checks)()
        above()

    return check_both


def _check(cert: x509.Certificate, issuer: x509.Certificate) -> Callable[[], None]:
    key, digest = issuer.public_key(), cert.signature_hash_algorithm
    signature, signed = cert.signature, cert.tbs_certificate_bytes
    assert digest is not None
    if isinstance(key, rsa.RSAPublicKey):
        pkcs1 = padding.PKCS1v15()
        return lambda: key.verify(signature, signed, pkcs1, digest)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return lambda: key.verify(signature, signed, ec.ECDSA(digest))


def _split(devices: Fleet) -> tuple[list[bytes], bytes, bytes]:
    """Return the leaves and the intermediate as PEM, and the registered root as DER, the form in which it is stored."""
    leaves = [issued.pem.encode() for issued in devices.devices]
    return leaves, devices.intermediate.pem.encode(), devices.root.der


def _pyopenssl(devices: Fleet, *, keep: bool = False) -> Subject:
    leaves, intermediate, root = _split(devices)
    following = cycle(leaves)

    def new_store() -> crypto.X509Store:
        store = crypto.X509Store()
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, root))
        return store

    kept = new_store()

    def judge() -> None:
        leaf = crypto.load_certificate(crypto.FILETYPE_PEM, next(following))
        above = crypto.load_certificate(crypto.FILETYPE_PEM, intermediate)
        crypto.X509StoreContext(kept if keep else new_store(), leaf, [above]).verify_certificate()

    return judge


def _cryptography(devices: Fleet) -> Subject:
    leaves, intermediate, root = _split(devices)
    following = cycle(leaves)
    relaxed = verification.ExtensionPolicy.permit_all()
    for_cas = relaxed.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)

    def judge() -> None:
        leaf = x509.load_pem_x509_certificate(next(following))
        above = x509.load_pem_x509_certificate(intermediate)
        store = verification.Store([x509.load_der_x509_certificate(root)])
        builder = verification.PolicyBuilder().store(store).time(dt.datetime.now(dt.UTC))
        policy = builder.extension_policies(ca_policy=for_cas, ee_policy=relaxed)
        policy.build_client_verifier().verify(leaf, [above])

    return judge


def _pyhanko(devices: Fleet) -> Subject:
    leaves, intermediate, root = _split(devices)
    following = cycle(leaves)

    def load(text: bytes) -> asn1_x509.Certificate:
        return asn1_x509.Certificate.load(pem.unarmor(text)[2])

    async def judge() -> None:
        context = ValidationContext(trust_roots=[asn1_x509.Certificate.load(root)], allow_fetching=False)
        validator = CertificateValidator(load(next(following)), [load(intermediate)], validation_context=context)
        await validator.async_validate_usage({"digital_signature"}, {"client_auth"})  # type: ignore[no-untyped-call]

    return lambda: asyncio.run(judge())


def _process(devices: Fleet, folder: Path) -> Subject:
    leaves, intermediate, _ = _split(devices)
    above, anchor = folder / "intermediate.pem", folder / "root.pem"
    above.write_bytes(intermediate)
    anchor.write_bytes(devices.root.cert.public_bytes(serialization.Encoding.PEM))
    files = []
    for number, leaf in enumerate(leaves[:10]):
        files.append(folder / f"leaf-{number}.pem")
        files[-1].write_bytes(leaf)
    following = cycle(files)
    command = ["openssl", "verify", "-partial_chain", "-purpose", "sslclient"]
    command += ["-CAfile", str(anchor), "-untrusted", str(above)]
    return lambda: subprocess.run([*command, next(following)], check=True, capture_output=True, timeout=60)
