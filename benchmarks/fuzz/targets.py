"""The table of targets: all code that takes bytes from outside, and the properties that hold for any bytes."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cloudevents import exceptions as cloud_exceptions
from cloudevents.http import from_http
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from jwt import PyJWS, PyJWTError

from benchmarks.fuzz import readers, world
from benchmarks.fuzz.refusals import CODES, Run, allow_refusals, check_refusal
from benchmarks.fuzz.service import Arena
from functions.events.sightings import Recorder, parse_pubsub, parse_sqs
from functions.events.uploads import import_all, parse_gcs, parse_s3
from functions.web.message import Reply, reply_headers
from shared.adapters.folder_reader import FolderReader
from shared.adapters.oidc_tokens import OidcTokens
from shared.errors import PassphraseRequired, TrustError
from shared.ports import FoundObject, UploadedObject
from shared.usecases.jobs.uploads import ForeignBucket, on_upload
from shared.validation import ca, csr, server_cert, verdict
from shared.validation.deny_list import questions
from shared.validation.facts import Anchor, OrgFacts, Scope
from shared.validation.names import ClientId, DeviceName, ServerName, is_domain, is_name, is_org_id
from shared.validation.policy import Decision, Policy
from shared.validation.presented import ConnectingClient, Presented
from shared.x509.cache import read_registered
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import CERTIFICATE_MAX, FILE_MAX
from shared.x509.moment import Moment
from shared.x509.private_key_files import load_private_key
from shared.x509.public_keys import public_key_info
from tests.support import bounds
from tests.support.certs import NOON
from tests.support.issuer import AUDIENCE, run_issuer


@dataclass(frozen=True)
class FuzzTarget:
    """One entry point for bytes from outside.

    Args:
        ready: a context manager that sets up the target once and returns the function to run with each input.
        seconds: CPU time that one input may take.
        most: size in bytes of the longest input; a little more than the target reads.
    """

    name: str
    ready: Callable[[], AbstractContextManager[Run]]
    seconds: float = bounds.CERTIFICATE
    most: int = FILE_MAX + 64


# --------------------------------------------------------------------------------------------- certificates and keys


def _read_ca() -> Run:
    def run(data: bytes) -> None:
        cert = ca.read_ca(data, at=NOON)
        ca.ca_id(cert)
        assert cert.subject_text.isprintable()

    return allow_refusals(run)


def _sign_with_ed25519(tbs: bytes) -> bytes:
    """Sign *tbs*, whatever it contains, so that the code after the signature check is reached as well."""
    signature = world.edwards().sign(tbs)
    algorithm = bytes.fromhex("300506032b6570")  # Ed25519, RFC 8410 section 3
    return _sequence(tbs + algorithm + b"\x03\x41\0" + signature)


def _sequence(content: bytes) -> bytes:
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return b"\x30" + (bytes([size]) if size < 0x80 else bytes([0x80 | len(octets)]) + octets) + content


@contextmanager
def _ca_file() -> Iterator[Run]:
    yield _read_ca()


@contextmanager
def _ca_signed() -> Iterator[Run]:
    read = _read_ca()
    yield lambda data: read(_sign_with_ed25519(data))


def _open_with_passphrase(run: Callable[[str | None], Any]) -> Any:
    """Call *run* without a passphrase, and again with the passphrase if one is required."""
    try:
        return run(None)
    except PassphraseRequired:
        return run(world.PASSPHRASE)


@contextmanager
def _private_key() -> Iterator[Run]:
    def run(data: bytes) -> None:
        key = _open_with_passphrase(lambda passphrase: load_private_key(data, passphrase))
        public_key_info(key.public_key())

    yield allow_refusals(run)


def _check_server(leaf: Certificate, chain: tuple[Certificate, ...]) -> None:
    server_cert.check_server_certificate(
        leaf,
        chain,
        host=world.HOST,
        custom_domains=("iot.example.org",),
        platform_domain=world.DOMAIN,
        org_id=world.ORG,
        at=NOON,
    )
    assert _names_no_other_org(leaf), "a name of another org was accepted"


def _names_no_other_org(leaf: Certificate) -> bool:
    """Return whether the only name under the platform's domain is the org's own host.

    A name with a NUL is no host name as a whole. Some clients read such a name up to the NUL.
    """
    try:
        names = _names_in(x509.load_der_x509_certificate(leaf.der))
    except Exception:  # noqa: BLE001 - OpenSSL reads more than cryptography: version 4, text that is not ASCII
        names = _texts_in(leaf.der)
    readings = [name.partition("\0")[0] for name in names]
    return all(name == world.HOST for name in readings if name.endswith(f".{world.DOMAIN}"))


def _names_in(cert: x509.Certificate) -> list[str]:
    """Return the common names and the DNS names of *cert*. Raises: ValueError, where cryptography cannot read them."""
    names = [str(attribute.value).lower() for attribute in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for extension in cert.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]
    return names


def _texts_in(der: bytes) -> list[str]:
    """Return everything in *der* that may be a DNSName or a common name: a printable text of a short length."""
    tags = b"\x82\x0c\x13\x14\x16"  # DNSName (RFC 5280, 4.2.1.6); UTF8String and the other string types of a name
    texts = (
        der[at + 2 : at + 2 + der[at + 1]].decode("latin-1").lower()
        for at in range(len(der) - 1)
        if der[at] in tags and der[at + 1] < 0x80
    )
    readings = ((text, text.partition("\0")[0]) for text in texts)
    return [text for text, read in readings if read.isascii() and read.isprintable()]  # a host name is ASCII


@contextmanager
def _server_bundle() -> Iterator[Run]:
    def run(data: bytes) -> None:
        bundle = _open_with_passphrase(
            lambda passphrase: server_cert.read_server_certificate(data, passphrase=passphrase)
        )
        assert public_key_info(bundle.private_key.public_key()) == bundle.leaf.public_key_info
        _check_server(bundle.leaf, bundle.chain)

    yield allow_refusals(run)


@contextmanager
def _csr_answer() -> Iterator[Run]:
    public_key = world.key(1004).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def run(data: bytes) -> None:
        leaf, chain = csr.read_signed(data, public_key=public_key)
        assert leaf.public_key_info == public_key
        _check_server(leaf, chain)

    yield allow_refusals(run)


def _facts(anchor: Certificate) -> OrgFacts:
    return OrgFacts(
        world.ORG,
        suspended=False,
        requires_sni=True,
        custom_domains=(),
        type_certificates=False,
        policy=Policy(),
        anchors=[Anchor(ca.ca_id(anchor), read_registered(anchor.der), active=True)],
    )


def _check_verdict(leaf: bytes, facts: OrgFacts) -> None:
    presented = Presented.read(ConnectingClient(world.HOST, world.CLIENT_ID, leaf))
    questions(presented.certificate_ids, presented.device)
    result = verdict.judge(presented, Scope(world.ORG), facts, platform_domain=world.DOMAIN, moment=Moment(NOON))
    assert result.code in CODES
    f"{result.reason} {result.mend}".encode()
    if result.decision is not Decision.DENY:
        assert result.decision is Decision.ALLOW
        _check_identity(presented.certificates[0].der)


def _check_identity(leaf: bytes) -> None:
    """Check that *leaf* names the device. cryptography cannot read every certificate that is accepted."""
    try:
        identities = _identities(leaf)
    except Exception:  # noqa: BLE001 -- it raises exceptions of many kinds; the name must then be in the octets
        assert any(world.DEVICE.encode(encoding) in leaf for encoding in ("ascii", "utf-16-be", "utf-32-be"))
    else:
        assert world.DEVICE in identities


def _identities(leaf: bytes) -> list[str]:
    cert = x509.load_der_x509_certificate(leaf)
    names = [str(attribute.value) for attribute in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for extension in cert.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += extension.value.get_values_for_type(x509.RFC822Name)
    return names


@contextmanager
def _device_chain() -> Iterator[Run]:
    facts = _facts(world.root().certificate)
    yield lambda data: _check_verdict(data, facts)


@contextmanager
def _device_signed() -> Iterator[Run]:
    facts = _facts(world.edwards_root().certificate)
    yield lambda data: _check_verdict(_sign_with_ed25519(data), facts)


# ----------------------------------------------------------------------------------------------------------- HTTP


def check_reply(reply: Reply) -> None:
    """Check that a reply is not a 500, and that its headers can be sent."""
    assert reply.status < 500, reply.body
    for name, value in reply_headers(reply).items():
        assert not set(name + value) & set("\r\n\0")
        (name + value).encode("latin-1")
    if reply.content_type == "application/problem+json" and reply.body:
        problem = json.loads(reply.body)
        assert problem["code"] in CODES
        assert problem["detail"]


@contextmanager
def _http() -> Iterator[Run]:
    with closing(Arena()) as arena:
        yield lambda data: arena.run(lambda: check_reply(arena.answer(data)))


# --------------------------------------------------------------------------------------------------------- events


class _Everything:
    """A bucket that contains every object: *data*, under any name."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        assert uploaded.bucket == world.BUCKET, "another bucket was asked"
        return FoundObject(
            uploaded.bucket, uploaded.key, uploaded.version or "v1", uploaded.etag, len(self._data), NOON
        )

    def read(self, entry: FoundObject) -> bytes | None:
        return self._data

    def remove(self, entry: FoundObject) -> None:
        assert entry.key.startswith(f"{world.ORG}/server/")


def _as_json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


@contextmanager
def _aws_event() -> Iterator[Run]:
    with closing(Arena()) as arena:
        objects = _Everything(world.root().pem.encode())
        recorder = Recorder(sleep=lambda seconds: None).record

        def run(data: bytes) -> None:
            event = _as_json(data)
            arena.run(lambda: import_all(arena.service.app, objects, parse_s3(event), bucket=world.BUCKET))
            arena.run(lambda: recorder(arena.service.app.context, parse_sqs(event)))

        yield run


@contextmanager
def _cloud_event() -> Iterator[Run]:
    """Read a message as functions-framework does: headers, an empty line, the body."""
    with closing(Arena()) as arena:
        objects = _Everything(world.root().pem.encode())
        recorder = Recorder(sleep=lambda seconds: None).record

        def run(data: bytes) -> None:
            head, _, body = data.partition(b"\n\n")
            lines = (line.partition(":") for line in head.decode("latin-1").split("\n"))
            try:
                event = from_http({name.strip().lower(): value.strip() for name, _, value in lines}, body)
            except (cloud_exceptions.GenericException, ValueError, RecursionError, TypeError, AttributeError):
                return  # the framework itself answers 400
            uploads = parse_gcs(event["type"], event["source"], event.data)
            arena.run(lambda: import_all(arena.service.app, objects, uploads, bucket=world.BUCKET))
            arena.run(lambda: recorder(arena.service.app.context, parse_pubsub(event["type"], event.data)))

        yield run


@contextmanager
def _object_name() -> Iterator[Run]:
    with closing(Arena()) as arena:
        objects = _Everything(world.intermediate().pem.encode())
        uploads = Path("/nowhere/uploads")
        folder = FolderReader(uploads)

        def run(data: bytes) -> None:
            key = data.decode("utf-8", "surrogateescape")  # lone surrogates, which JSON can carry
            path = folder.resolve(key)
            assert path is None or Path(os.path.normpath(path)).is_relative_to(uploads)
            arena.run(lambda: _import_object(arena, objects, key))

        yield run


def _import_object(arena: Arena, objects: _Everything, key: str) -> None:
    for name in (key, f"{world.ORG}/ca/{key}", f"{world.ORG}/csr/{key}", f"{world.ORG}/{key}"):
        if name.startswith(f"{world.OTHER}/"):
            continue  # the bucket's policy decides who may write below another org's prefix
        try:
            on_upload(
                arena.service.app.context,
                arena.service.app.sealer,
                objects,
                UploadedObject(world.BUCKET, name),
                bucket=world.BUCKET,
            )
        except ForeignBucket as error:
            raise AssertionError("the bucket is ours") from error


# --------------------------------------------------------------------------------------------------------- sign-in


@contextmanager
def _sign_in() -> Iterator[Run]:
    """Use the input as a token; or, if it has two lines, as header and claims that the issuer really signs."""
    with run_issuer() as issuer:
        tokens = OidcTokens(
            issuer=issuer.url, audience=AUDIENCE, org_claim="org", role_claim="role", clock=lambda: datetime.now(UTC)
        )
        signer = PyJWS()

        def run(data: bytes) -> None:
            header, newline, claims = data.partition(b"\n")
            text = data.decode("latin-1")
            if newline:
                header_fields = _as_json(header)
                named = {"kid": "first", **header_fields} if isinstance(header_fields, dict) else {"kid": "first"}
                try:
                    claims = claims.replace(b"$ISSUER", issuer.url.encode())
                    text = signer.encode(claims, issuer.keys["first"], algorithm="RS256", headers=named)
                except (PyJWTError, ValueError, TypeError, RecursionError, NotImplementedError):
                    return  # no such token can be made
            identity = tokens.verify(text)
            assert identity.subject
            assert identity.subject.isprintable()

        yield allow_refusals(run)


# ---------------------------------------------------------------------------------------------------------- names


@contextmanager
def _name() -> Iterator[Run]:
    def run(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        try:
            client = ClientId.parse(text)
        except TrustError as error:
            check_refusal(error)
        else:
            assert is_org_id(client.org_id)
            assert client.text == text
            assert text.isascii()
        if (device := DeviceName.parse(text)) is not None:
            assert str(device) == text
            assert is_name(device.type_id)
        if (server := ServerName.parse(text)) is not None:
            assert f"{server.org_id}.messaging.{server.domain}" == text.lower().removesuffix(".")
            assert is_domain(server.domain)

    yield run


TARGETS: Final[tuple[FuzzTarget, ...]] = (
    FuzzTarget("ca_file", _ca_file),
    FuzzTarget("ca_signed", _ca_signed, most=CERTIFICATE_MAX + 64),
    FuzzTarget("server_bundle", _server_bundle, bounds.KEY_FILE),
    FuzzTarget("private_key", _private_key, bounds.KEY_FILE),
    FuzzTarget("csr_answer", _csr_answer),
    FuzzTarget("device_chain", _device_chain),
    FuzzTarget("device_signed", _device_signed, most=CERTIFICATE_MAX + 64),
    FuzzTarget("device_plain", readers.device_plain, most=CERTIFICATE_MAX + 64),
    FuzzTarget("denied", readers.denied, most=CERTIFICATE_MAX + 64),
    FuzzTarget("api", _http, bounds.KEY_FILE),
    FuzzTarget("callout", _http),
    FuzzTarget("dialect", _http),
    FuzzTarget("sign_in", _sign_in, most=17 * 1024),
    FuzzTarget("aws_event", _aws_event),
    FuzzTarget("cloud_event", _cloud_event),
    FuzzTarget("object_name", _object_name, most=2048),
    FuzzTarget("name", _name, most=512),
)
BY_NAME: Final = {target.name: target for target in TARGETS}
