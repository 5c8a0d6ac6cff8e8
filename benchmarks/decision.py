"""Measure one decision in process against its lower limit (the signatures alone) and against alternatives.

The input is PEM bytes: the leaf and the intermediate that a device sends. A decision is the whole use case: the key of
the caller, the batched read from SQLite, the chain, the deny list, the policy and the identity. The alternatives judge
the chain alone, from the same bytes, without organizations, weak keys or identities.
"""

import asyncio
import datetime as dt
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
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

_LIMITS: Final = {"RSA-2048": 3.5, "P-256": 2.2}  # multiples of the cost of the signatures
_DECISION: Final = "decision"
_FORGETFUL: Final = "decision, nothing kept"
_SIGNATURES: Final = "signatures"


def measure(quick: bool) -> list[Row]:
    return [row for kind in KINDS for row in _rows(kind, quick)]


def _rows(kind: str, quick: bool) -> list[Row]:
    devices = make_fleet(kind, 20 if quick else 300)
    subjects = {
        _SIGNATURES: _signatures(devices),
        "pyOpenSSL store": _pyopenssl(devices),
        "pyOpenSSL store that is kept": _pyopenssl(devices, keep=True),
        "cryptography, relaxed policy": _cryptography(devices),
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, deployment(Path(folder), devices.root) as deployed:
        decide = deployed.decisions(devices)
        rounds = 3 if quick else 400
        ways = {_DECISION: decide, _FORGETFUL: _clear_caches_before(decide), **subjects}
        samples = measure_interleaved(ways, rounds=rounds, clock=time.process_time)
        slow: dict[str, Subject] = {"pyhanko-certvalidator": _pyhanko(devices)}
        if shutil.which("openssl"):
            slow["openssl verify (process)"] = _process(devices, Path(folder))
        slow_samples = measure_interleaved({_DECISION: decide, **slow}, rounds=1 if quick else 100)
    figures = microseconds(samples)
    slow_figures = microseconds(slow_samples)
    name = f"one decision, {kind}"
    shown_figures = {subject: figures[subject] for subject in (_DECISION, _SIGNATURES)}
    limit = Target(at_most=_LIMITS[kind])
    rows = [Row(name, "its two signatures alone", ratio(samples, _DECISION, _SIGNATURES), limit, figures=shown_figures)]
    shown_figures = {subject: figures[subject] for subject in (_FORGETFUL, _SIGNATURES)}
    first = ratio(samples, _FORGETFUL, _SIGNATURES)
    rows.append(Row(f"{name}, nothing kept from before", "its two signatures alone", first, figures=shown_figures))
    for other in subjects:
        if other != _SIGNATURES:
            # A store that always holds one CA, which a service of many organizations cannot have.
            kept = other.endswith("kept")
            against = {subject: figures[subject] for subject in (_DECISION, other)}
            target = STATED if kept else Target(below=1)
            rows.append(Row(name, other, ratio(samples, _DECISION, other), target, figures=against))
    for other in slow:
        against = {subject: slow_figures[subject] for subject in (_DECISION, other)}
        rows.append(Row(name, other, ratio(slow_samples, _DECISION, other), Target(below=1), figures=against))
    return rows


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
