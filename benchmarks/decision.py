"""One decision in process, against its limit (the signatures alone) and against what one could use instead.

PEM bytes in: the leaf and the intermediate that a device sent. The decision is the whole use case, with the caller's
key, the batched read from SQLite, the chain, the deny list, the policy and the identity; what stands against it judges
the chain alone, from the same bytes, and knows nothing of orgs, weak keys or identities.
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

from benchmarks.fleet import KINDS, Fleet, deployment, fleet
from benchmarks.table import STATED, Row, Subject, Target, interleaved, microseconds, ratio
from shared.x509 import cache, distinguished_name

_LIMITS: Final = {"RSA-2048": 3.5, "P-256": 2.2}  # times the signatures alone
_DECISION: Final = "decision"
_FORGETFUL: Final = "decision, nothing kept"
_SIGNATURES: Final = "signatures"


def rows(quick: bool) -> list[Row]:
    return [row for kind in KINDS for row in _rows(kind, quick)]


def _rows(kind: str, quick: bool) -> list[Row]:
    devices = fleet(kind, 20 if quick else 300)
    subjects = {
        _SIGNATURES: _signatures(devices),
        "pyOpenSSL store": _pyopenssl(devices),
        "pyOpenSSL store that is kept": _pyopenssl(devices, keep=True),
        "cryptography, relaxed policy": _cryptography(devices),
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, deployment(Path(folder), devices.root) as one:
        decide = one.decisions(devices)
        rounds = 3 if quick else 400
        ways = {_DECISION: decide, _FORGETFUL: _forgetful(decide), **subjects}
        samples = interleaved(ways, rounds=rounds, clock=time.process_time)
        slow: dict[str, Subject] = {"pyhanko-certvalidator": _pyhanko(devices)}
        if shutil.which("openssl"):
            slow["openssl verify (process)"] = _process(devices, Path(folder))
        slow_samples = interleaved({_DECISION: decide, **slow}, rounds=1 if quick else 100)
    figures = microseconds(samples)
    slow_figures = microseconds(slow_samples)
    name = f"one decision, {kind}"
    shown = {one: figures[one] for one in (_DECISION, _SIGNATURES)}
    limit = Target(at_most=_LIMITS[kind])
    found = [Row(name, "its two signatures alone", ratio(samples, _DECISION, _SIGNATURES), limit, figures=shown)]
    shown = {one: figures[one] for one in (_FORGETFUL, _SIGNATURES)}
    first = ratio(samples, _FORGETFUL, _SIGNATURES)
    found.append(Row(f"{name}, nothing kept from before", "its two signatures alone", first, figures=shown))
    for other in subjects:
        if other != _SIGNATURES:
            kept = other.endswith("kept")  # of one CA for ever: no service of many orgs can do it so
            against = {one: figures[one] for one in (_DECISION, other)}
            target = STATED if kept else Target(below=1)
            found.append(Row(name, other, ratio(samples, _DECISION, other), target, figures=against))
    for other in slow:
        against = {one: slow_figures[one] for one in (_DECISION, other)}
        found.append(Row(name, other, ratio(slow_samples, _DECISION, other), Target(below=1), figures=against))
    return found


def _forgetful(decide: Subject) -> Subject:
    """The same as the first one of a process about these CAs: root and intermediate are read and verified anew."""

    def judge() -> object:
        cache._registered.cache_clear()
        cache._intermediates.cache_clear()
        distinguished_name._kept.clear()
        return decide()

    return judge


# ---------------------------------------------------------------------------------------- what it is measured against
# Each takes the next device at each call, and raises where it refuses it.


def _signatures(devices: Fleet) -> Subject:
    """The limit: the signatures on leaf and intermediate, every certificate and key parsed before."""
    intermediate = devices.intermediate.cert
    above = _check(intermediate, devices.root.cert)
    checks = cycle([_check(one.cert, intermediate) for one in devices.devices])

    def both() -> None:
        next(checks)()
        above()

    return both


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
    """The leaves and the intermediate as PEM, and the registered root as DER, the form in which it is kept."""
    leaves = [one.pem.encode() for one in devices.devices]
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
