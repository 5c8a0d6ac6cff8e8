"""The valid seeds of the corpus: one small file of each form that people and clouds send."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)

from benchmarks.fuzz import readers, world
from functions.registry import PREFIX, every_route
from shared.x509 import der
from tests.support import certs, costly
from tests.support.events import load_event
from tests.support.harness import multipart
from tests.support.issuer import AUDIENCE

RECORDED = Path(__file__).parents[2] / "tests" / "data" / "dialects"
Seeds = Mapping[str, bytes]  # file name -> input


def write(folder: Path) -> None:
    """Write every seed below *folder*; other files there are kept."""
    for target, files in _seeds().items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / target / name).write_bytes(data)


def _seeds() -> dict[str, Seeds]:
    http = dict(_requests())
    return {
        "ca_file": dict(_ca_files()),
        "ca_signed": {"root": world.edwards_root().cert.tbs_certificate_bytes},
        "private_key": dict(_keys()),
        "server_bundle": dict(_bundles()),
        "csr_answer": dict(_answers()),
        "device_chain": dict(_chains()),
        "device_signed": {name: cert.tbs_certificate_bytes for name, cert in _devices()},
        "device_plain": dict(_signed_parts()),
        "denied": dict(_leaves_of_every_kind()),
        "api": {name: data for name, data in http.items() if not _is_callout(name)},
        "callout": {name: data for name, data in http.items() if _is_callout(name)},
        "dialect": dict(_questions()),
        "aws_event": {
            name: json.dumps(load_event(name)).encode()
            for name in ("s3_put", "s3_by_sqs", "s3_by_sns", "s3_event_bridge", "s3_by_sns_and_sqs", "s3_test")
        },
        "cloud_event": dict(_cloud_events()),
        "sign_in": dict(_tokens()),
        "object_name": {
            "ca": b"plant 1/root.pem",
            "up": b"../other1/ca/x",
            "csr": b"csr/0123456789abcdef.pem",
            "odd": "a\u202eb\0c//%2e%2e".encode(),
        },
        "name": {
            "client": world.CLIENT_ID.encode(),
            "application": f"A:{world.ORG}:app:1".encode(),
            "device": world.DEVICE.encode(),
            "host": f"{world.HOST}.".encode(),
        },
    }


def _is_callout(name: str) -> bool:
    return name.startswith("verify")


# -------------------------------------------------------------------------------------------------- certificates


def _ca_files() -> Iterator[tuple[str, bytes]]:
    root = world.root()
    yield "pem", root.pem.encode()
    yield "der", root.der
    yield "text", b"Certificate:\n    Data:\n" + root.pem.replace("\n", "\r\n").encode()
    yield "trusted", root.pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE").encode()
    yield "pkcs7", pkcs7.serialize_certificates([root.cert], Encoding.DER)
    yield "utf16", root.pem.encode("utf-16")
    yield "edwards", world.edwards_root().der
    yield "csr", certs_csr().public_bytes(Encoding.PEM)


def certs_csr() -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(certs.name(world.HOST))
    return builder.sign(world.key(1004), hashes.SHA256())


def _rsa() -> rsa.RSAPrivateKey:
    key = certs.key("RSA-2048", 77)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _keys() -> Iterator[tuple[str, bytes]]:
    secret = world.PASSPHRASE.encode()
    for name, private in (("ec", world.key(1004)), ("rsa", _rsa())):
        yield name, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        yield f"{name}_der", private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        yield f"{name}_old", private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        sealed = BestAvailableEncryption(secret)
        yield f"{name}_old_sealed", private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, sealed)
        yield f"{name}_sealed", private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, sealed)
    yield "pkcs12", _pkcs12(secret)


def _pkcs12(secret: bytes | None) -> bytes:
    """Encode with few key derivation rounds, so that many inputs can be tried in a second."""
    server = world.server()
    how = (
        NoEncryption()
        if secret is None
        else PrivateFormat.PKCS12.encryption_builder().kdf_rounds(50).hmac_hash(hashes.SHA256()).build(secret)
    )
    private = world.key(1004)
    return pkcs12.serialize_key_and_certificates(b"prod", private, server.cert, [world.root().cert], how)


def _bundles() -> Iterator[tuple[str, bytes]]:
    server, root = world.server(), world.root()
    yield "pem", (server.key_pem + server.pem + root.pem).encode()
    yield "sealed", (certs.key_pem(server.key, world.PASSPHRASE) + server.pem).encode()
    yield "pkcs12", _pkcs12(world.PASSPHRASE.encode())
    yield "pkcs12_open", _pkcs12(None)
    yield "alone", server.pem.encode()


def _answers() -> Iterator[tuple[str, bytes]]:
    server, root = world.server(), world.root()
    both = [server.cert, root.cert]
    yield "pem", (server.pem + root.pem).encode()
    yield "der", server.der
    yield "two", server.der + root.der
    yield "pkcs7", pkcs7.serialize_certificates(both, Encoding.DER)
    yield "pkcs7_pem", pkcs7.serialize_certificates(both, Encoding.PEM)


def _chains() -> Iterator[tuple[str, bytes]]:
    device, between, root = world.device(), world.intermediate(), world.root()
    yield "pem", (device.pem + between.pem).encode()
    yield "all", (device.pem + between.pem + root.pem).encode()
    yield "der", device.der + between.der
    yield "alone", device.pem.encode()
    yield "pkcs7", pkcs7.serialize_certificates([device.cert, between.cert], Encoding.PEM)
    yield "costly", _costly_chain()


def _signed_parts() -> Iterator[tuple[str, bytes]]:
    """Yield signed parts of leaves and CAs, also of forms that no mutation makes from the usual ones."""
    root, key = world.root(), world.key(1003)
    yield "leaf", certs.leaf(world.DEVICE, root, private=key, serial=4).cert.tbs_certificate_bytes
    yield "intermediate", world.intermediate().cert.tbs_certificate_bytes
    for name, extension in _unusual_extensions().items():
        made = certs.leaf(world.DEVICE, root, private=key, serial=4, more=[(extension, False)])
        yield name.replace(" ", "_"), made.cert.tbs_certificate_bytes
        ca = certs.ca("Fuzz Intermediate", root, private=world.key(1002), serial=2, more=[(extension, False)])
        yield f"ca_{name.replace(' ', '_')}", ca.cert.tbs_certificate_bytes
    for name, info in _unusual_keys().items():
        yield name, _with_key(certs.leaf(world.DEVICE, root, private=key, serial=4).der, info)
        yield f"ca_{name}", _with_key(certs.ca("Fuzz Intermediate", root, private=key, serial=2).der, info)


def _unusual_extensions() -> dict[str, x509.ExtensionType]:
    """Return extensions that OpenSSL decodes or applies."""
    name, uri = x509.DirectoryName(certs.name("Fuzz Root")), x509.UniformResourceIdentifier("http://ca.example/crl")
    oid, unknown = x509.ObjectIdentifier, x509.UnrecognizedExtension
    return {
        "other name": x509.SubjectAlternativeName([x509.OtherName(oid("1.3.6.1.5.5.7.8.4"), b"\x30\0"), name]),
        "crl by name": x509.CRLDistributionPoints([x509.DistributionPoint([name, uri], None, None, None)]),
        "issuer by serial": x509.AuthorityKeyIdentifier(b"id", [name], 1),
        "key id": x509.SubjectKeyIdentifier(b"id"),
        "addresses": unknown(oid("1.3.6.1.5.5.7.1.7"), bytes.fromhex("300c300a04020001300403020a00")),
        "constraints": x509.NameConstraints([x509.DNSName("example.com")], [x509.RFC822Name("example.org")]),
        "policies": x509.CertificatePolicies([x509.PolicyInformation(oid("1.2.3"), ["http://ca.example/cps"])]),
        "mappings": unknown(oid("2.5.29.33"), bytes.fromhex("300a300806022a0306022a04")),
        "explicit policy": x509.PolicyConstraints(0, 0),
        "any policy": x509.InhibitAnyPolicy(0),
        "proxy": unknown(oid("1.3.6.1.5.5.7.1.14"), bytes.fromhex("300c300a06082b06010505071501")),
        "netscape": unknown(oid("2.16.840.1.113730.1.1"), bytes.fromhex("03020780")),
    }


def _unusual_keys() -> dict[str, bytes]:
    """Return keys whose encodings OpenSSL and cryptography may take for different ones."""
    point = world.key(1002).public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    named = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    p256 = (  # RFC 3279, 2.3.5: the curve P-256, written out
        "3081e2020101302c06072a8648ce3d0101022100ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"
        "30440420ffffffff00000001000000000000000000000000fffffffffffffffffffffffc04205ac635d8aa3a93e7b3ebbd557698"
        "86bc651d06b0cc53b0f63bce3c3e27d2604b0441046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2"
        "964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5022100ffffffff00000000ffffffffffffffff"
        "bce6faada7179e84f3b9cac2fc632551020101"
    )
    written_out = der.encode(der.SEQUENCE, bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex(p256))
    whole = world.key(1002).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    rsa_info = _rsa().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "compressed": der.encode(der.SEQUENCE, named, der.encode(der.BIT_STRING, b"\0", point)),
        "written_out": der.encode(der.SEQUENCE, written_out, der.encode(der.BIT_STRING, b"\0", whole)),
        "rsa": rsa_info,
        "pss_alone": der.encode(
            der.SEQUENCE, bytes.fromhex("300b06092a864886f70d01010a"), der.elements(rsa_info)[0].children[1].whole
        ),
    }


def _with_key(certificate: bytes, info: bytes) -> bytes:
    """Return the signed part of *certificate* with the key *info*."""
    parts = [part.whole for part in der.elements(certificate)[0].children[0].children]
    parts[6] = info
    return der.encode(der.SEQUENCE, *parts)


def _leaves_of_every_kind() -> Iterator[tuple[str, bytes]]:
    """Yield a leaf for each kind of signature, and the CA that signed the leaf."""
    null = bytes.fromhex("300c06082a8648ce3d0403020500")
    for name, kind in (("rsa", "RSA-2048"), ("ecdsa", "P-256"), ("p384", "P-384"), ("ed25519", "Ed25519")):
        ca = certs.ca("Fuzz Root", private=certs.key(kind, 78), serial=1)
        yield f"{name}.ca", ca.der
        yield f"{name}.leaf", certs.leaf(world.DEVICE, ca, private=world.key(1003), serial=4).der
        if name == "ecdsa":
            parts = [part.whole for part in der.elements(certs.leaf(world.DEVICE, ca, serial=5).der)[0].children]
            signed = [part.whole for part in der.elements(parts[0])[0].children]
            signed[2] = null
            yield "null.ca", ca.der
            yield "null.leaf", readers.sign(der.encode(der.SEQUENCE, *signed), ca.key)


def _costly_chain() -> bytes:
    """Return a chain with several paths, whose CAs have name constraints: the shape of `tests.support.costly`."""
    above, sent = world.root(), b""
    for level in range(2):
        limits, key = costly.subtrees("uri", 20), world.key(1005)
        serials = range(10 * level + 10, 10 * level + 12)
        here = [certs.ca(f"Level {level}", above, private=key, serial=serial, more=limits) for serial in serials]
        sent += b"".join(ca.der for ca in here)
        above = here[0]
    names, ended = costly.names("uri", 20), certs.NOON - certs.DAY
    return certs.leaf(world.DEVICE, above, private=world.key(1003), more=names, not_after=ended, serial=6).der + sent


def _devices() -> Iterator[tuple[str, x509.Certificate]]:
    signer = world.edwards_root()
    yield "common_name", certs.leaf(world.DEVICE, signer, private=world.key(1003), serial=5).cert
    san = certs.leaf(
        "thermometer",
        signer,
        private=world.key(1003),
        emails=[world.DEVICE],
        dns=["a.example.org"],
        uris=["urn:x"],
        extended_key_usage=[certs.CLIENT_AUTH],
        key_usage=certs.usage(digital_signature=True),
        more=[
            (x509.SubjectKeyIdentifier.from_public_key(world.key(1003).public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), False),
            (x509.BasicConstraints(False, None), True),
        ],
        serial=6,
    )
    yield "alternative_name", san.cert
    constrained = [(x509.NameConstraints([x509.DNSName("example.com")], [x509.DNSName("a.example.com")]), True)]
    yield "constrained", certs.leaf(world.DEVICE, signer, private=world.key(1003), more=constrained, serial=7).cert


# ---------------------------------------------------------------------------------------------------------- HTTP

_BODIES: Mapping[str, object] = {
    "upload_ca": {"certificate": "@root", "comments": "Factory 1"},
    "upload_server_cert": {"certificate": "@server", "privateKey": "@key", "chain": "@root", "passphrase": ""},
    "activate_server_cert": {"id": "default"},
    "generate_csr": {"organization": "Example", "country": "DE", "keyAlgorithm": "P-256", "commonName": world.HOST},
    "fulfill_csr": {"certificate": "@server", "id": "{csr}"},
    "verify_client": {
        "serverName": world.HOST,
        "clientId": world.CLIENT_ID,
        "certificate": "@device",
        "tls": True,
        "explain": False,
    },
    "change_ca": {"status": "inactive", "comments": "x"},
    "change_server": {"comments": "x"},
    "preview": {"certificate": "@root"},
    "put_policy": {"default": "TLS Optional", "rules": [{"deviceType": "thermo", "level": "TLS Optional"}]},
    "dry_run_policy": {"default": "TLS Optional"},
    "put_settings": {"customDomains": {"enabled": True, "domains": ["iot.example.org"]}, "typeCertificates": True},
    "served": {"edge": "e1", "hosts": [{"serverName": world.HOST, "version": "1-2"}]},
    "listeners": {"node": {"metadata": {"listeners": [{"name": "a", "protocol": "websocket", "port": 8884}]}}},
    "secrets": {"resource_names": [f"server/{world.HOST}"], "version_info": "x"},
    "deny": {"kind": "identity", "value": world.DEVICE, "reason": "stolen"},
}


def _fill(value: object) -> object:
    files = {
        "@root": world.root().pem,
        "@server": world.server().pem,
        "@key": world.server().key_pem,
        "@device": world.device().pem + world.intermediate().pem,
    }
    if isinstance(value, dict):
        return {name: _fill(inner) for name, inner in value.items()}
    return files.get(value, value) if isinstance(value, str) else value


def _requests() -> Iterator[tuple[str, bytes]]:
    """Make one request to each route, and a form for some routes."""
    for route in every_route():
        if route.endpoint.is_dialect or route.operation_id is None:
            continue
        handler = route.operation_id.removesuffix("_alias")
        path = route.path.replace("{id}", "{server}").replace("{serverName}", world.HOST)
        body = json.dumps(_fill(_BODIES[handler])).encode() if handler in _BODIES else b""
        head = f"{route.method} {path}\ncontent-type: application/json\nif-match: *\n\n"
        prefix = "verify_" if route.endpoint.function == "verifyClient" else ""
        alias = "_alias" if handler != route.operation_id else ""
        yield f"{prefix}{handler}_{route.method.lower()}{alias}", head.encode() + body
    forms: list[tuple[str, str, dict[str, str | bytes]]] = [
        ("upload_ca_form", "/uploadCA", {"certificate": world.root().der, "comments": "x"}),
        ("preview_form", "/authentication/preview", {"certificate": world.server().pem.encode()}),
        (
            "verify_form",
            "/verifyClient",
            {"certificate": world.device().der, "serverName": world.HOST, "clientId": world.CLIENT_ID},
        ),
    ]
    for name, path, fields in forms:
        kind, form = multipart(fields)
        yield name, f"POST {PREFIX}{path}\ncontent-type: {kind}\n\n".encode() + form
    der = {
        "certificateDer": base64.b64encode(world.device().der).decode(),
        "chainDer": base64.b64encode(world.intermediate().der).decode(),
        "serverName": world.HOST,
    }
    yield "verify_der", b"POST /verifyClient\ncontent-type: application/json\n\n" + json.dumps(der).encode()
    yield "basic", b"GET /api/v0002/session\nauthorization: Basic YS1tdHhwZDAtYWFhYWFhYWFhYTp4\n\n"
    yield "bearer", b"GET /api/v0002/session\nauthorization: Bearer a.b.c\n\n"
    yield "query", b"GET /api/v0002/authentication/cacertificates?limit=2&bookmark=a%2Fb&x\n\n"
    yield "console", b'GET /console/../index.html\nif-none-match: W/"x", *\n\n'


def _questions() -> Iterator[tuple[str, bytes]]:
    """Make each broker's own request, as its documentation shows it."""
    device, between = world.device(), world.intermediate()
    words = {
        "$PEM_URL": quote(device.pem, safe=""),
        "$CHAIN_URL": quote(device.pem + between.pem, safe=""),
        "$SHA256": device.fingerprint,
    }
    for path in sorted(RECORDED.glob("*.json")):
        fixture = json.loads(path.read_text())
        kind = fixture["headers"].get("content-type", "")
        pem = json.dumps(device.pem)[1:-1] if "json" in kind else quote(device.pem)
        body = fixture["body"] or {}
        text = json.dumps(body) if "json" in kind else urlencode(body, safe="$")
        head = "".join(f"{name}: {value}\n" for name, value in fixture["headers"].items())
        message = f"{fixture['method']} {fixture['path']}\n{head}\n{text if body else ''}"
        for word, value in words.items():
            message = message.replace(word, value)
        yield path.stem, message.replace("$PEM", pem).encode()


# -------------------------------------------------------------------------------------------------------- events


def _cloud_events() -> Iterator[tuple[str, bytes]]:
    for name in ("gcs_finalized", "pubsub_message"):
        event = load_event(name)
        yield f"{name}_structured", b"content-type: application/cloudevents+json\n\n" + json.dumps(event).encode()
        heads = "".join(f"ce-{key}: {value}\n" for key, value in event.items() if isinstance(value, str))
        body = json.dumps(event["data"])
        yield f"{name}_binary", f"content-type: application/json\n{heads}\n{body}".encode()


def _tokens() -> Iterator[tuple[str, bytes]]:
    """Make headers and claims, which the target signs, and an unsigned token."""
    claims: dict[str, object] = {"iss": "$ISSUER", "aud": AUDIENCE, "sub": "anna", "org": world.ORG, "role": "viewer"}
    for name, more in (
        ("good", {"exp": 4_000_000_000, "iat": 1_700_000_000}),
        ("lists", {"exp": 4e9, "aud": [AUDIENCE, "x"], "org": [world.ORG], "nbf": 1}),
        ("nan", {"exp": float("nan")}),
        ("huge", {"exp": 10**400}),
    ):
        yield name, b'{"typ": "JWT"}\n' + json.dumps({**claims, **more}).encode()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=")
    yield "unsigned", none + b"." + base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=") + b"."
