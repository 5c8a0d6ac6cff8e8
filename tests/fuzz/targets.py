"""The table of targets: what takes bytes from outside, and what must hold of any bytes."""

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
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from jwt import PyJWS, PyJWTError

from functions.events.sightings import Recorder, pubsub_body, sqs_bodies
from functions.events.uploads import gcs_uploads, s3_uploads, take
from functions.hosts.wire import headers as wire_headers
from functions.web.http import Reply
from shared.adapters.folder_reader import FolderReader
from shared.adapters.oidc_tokens import OidcTokens
from shared.errors import PassphraseRequired, TrustError, every_error
from shared.ports import FoundObject, UploadedObject
from shared.usecases.jobs.uploads import ForeignBucket, on_upload
from shared.validation import ca, csr, server_cert, verdict
from shared.validation.deny_list import questions
from shared.validation.names import ClientId, DeviceName, ServerName, is_domain, is_name, is_org_id
from shared.validation.policy import Decision, Policy
from shared.validation.presented import Presented
from shared.x509 import path as certification_path
from shared.x509.cache import read_registered
from shared.x509.certificate import Certificate
from shared.x509.certificate_files import CERTIFICATE_MAX, FILE_MAX
from shared.x509.private_key_files import load_private_key
from shared.x509.public_keys import public_key_info
from tests import bounds
from tests.certs import NOON
from tests.differential import compare
from tests.fuzz import world
from tests.fuzz.service import Arena
from tests.issuer import AUDIENCE, running_issuer

Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """One way in.

    Args:
        ready: sets up what is needed once; what it gives is run with each input.
        seconds: of CPU time that one input may take.
        most: bytes of the longest input that is tried; a little more than the longest that is read."""

    name: str
    ready: Callable[[], AbstractContextManager[Run]]
    seconds: float = bounds.CERTIFICATE
    most: int = FILE_MAX + 64


CODES: Final = {kind.code for kind in every_error()} | {"allowed", "token_required", "internal", "key_not_opened"}


def check_refusal(error: TrustError) -> None:
    """It has a code that is documented, and sentences that can be sent and shown."""
    assert error.code in CODES, type(error).__name__
    text = str(error)
    text.encode()  # half a character could not be sent
    assert 0 < len(text) <= 2000, f"{len(text)} characters"


def refusing(run: Run) -> Run:
    """*run*, in which a refusal is an answer."""

    def refused(data: bytes) -> None:
        try:
            run(data)
        except TrustError as error:
            check_refusal(error)

    return refused


# --------------------------------------------------------------------------------------------- certificates and keys


def _read_ca() -> Run:
    def run(data: bytes) -> None:
        cert = ca.read_ca(data, at=NOON)
        ca.ca_id(cert)
        assert cert.subject_text.isprintable()

    return refusing(run)


def _signed_by_edwards(tbs: bytes) -> bytes:
    """A certificate of whatever is in *tbs*, really signed: what is behind the signature check is reached too."""
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
    yield lambda data: read(_signed_by_edwards(data))


def _opened(run: Callable[[str | None], Any]) -> Any:
    """With the passphrase where one is asked for."""
    try:
        return run(None)
    except PassphraseRequired:
        return run(world.PASSPHRASE)


@contextmanager
def _private_key() -> Iterator[Run]:
    def run(data: bytes) -> None:
        key = _opened(lambda passphrase: load_private_key(data, passphrase))
        public_key_info(key.public_key())

    yield refusing(run)


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
    assert _speaks_for_no_other(leaf), "a name of another org was accepted"


def _speaks_for_no_other(leaf: Certificate) -> bool:
    """Of all names under the platform's domain, it has the org's own host alone."""
    cert = x509.load_der_x509_certificate(leaf.der)
    names = [str(cn.value).lower() for cn in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for extension in cert.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]
    return all(name == world.HOST for name in names if name.endswith(f".{world.DOMAIN}"))


@contextmanager
def _server_bundle() -> Iterator[Run]:
    def run(data: bytes) -> None:
        server = _opened(lambda passphrase: server_cert.read_server_certificate(data, passphrase=passphrase))
        assert public_key_info(server.private_key.public_key()) == server.leaf.public_key_info
        _check_server(server.leaf, server.chain)

    yield refusing(run)


@contextmanager
def _csr_answer() -> Iterator[Run]:
    requested = world.key(1004).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def run(data: bytes) -> None:
        leaf, chain = csr.read_signed(data, public_key=requested)
        assert leaf.public_key_info == requested
        _check_server(leaf, chain)

    yield refusing(run)


def _facts(anchor: Certificate) -> verdict.OrgFacts:
    return verdict.OrgFacts(
        world.ORG,
        suspended=False,
        requires_sni=True,
        custom_domains=(),
        type_certificates=False,
        policy=Policy(),
        anchors=[verdict.Anchor(ca.ca_id(anchor), read_registered(anchor.der), active=True)],
    )


def _judge(leaf: bytes, facts: verdict.OrgFacts) -> None:
    presented = Presented.of(server_name=world.HOST, client_id=world.CLIENT_ID, certificate=leaf)
    questions(presented)
    answer = verdict.judge(presented, verdict.Scope(world.ORG), facts, platform_domain=world.DOMAIN, at=NOON)
    assert answer.code in CODES
    f"{answer.reason} {answer.mend}".encode()
    if answer.decision is not Decision.DENY:
        assert answer.decision is Decision.ALLOW
        assert world.DEVICE in _identities(presented.certificates[0].der)


def _identities(leaf: bytes) -> list[str]:
    cert = x509.load_der_x509_certificate(leaf)
    names = [str(cn.value) for cn in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for extension in cert.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += extension.value.get_values_for_type(x509.RFC822Name)
    return names


@contextmanager
def _device_chain() -> Iterator[Run]:
    facts = _facts(world.root().certificate)
    yield lambda data: _judge(data, facts)


@contextmanager
def _device_signed() -> Iterator[Run]:
    facts = _facts(world.edwards_root().certificate)
    yield lambda data: _judge(_signed_by_edwards(data), facts)


def _sign_with_the_root(tbs: bytes) -> bytes:
    """Return the same with ECDSA, whose signatures are verified without OpenSSL where a path is plain."""
    signature = world.key(1001).sign(tbs, ec.ECDSA(hashes.SHA256()))  # the root's
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256, RFC 5758 section 3.2
    bits = b"\0" + signature
    return _sequence(tbs + algorithm + b"\x03" + bytes([len(bits)]) + bits)


@contextmanager
def _device_plain() -> Iterator[Run]:
    """The signed input is the leaf, or the intermediate between a good leaf and the root.

    On every plain path, the fast way and OpenSSL give the same answer."""
    root, device = world.root().certificate, world.device().der

    def check(leaf: Certificate, *sent: Certificate) -> None:
        try:
            certification_path.verify(leaf, sent, [root], [], NOON)
        except TrustError as refusal:
            check_refusal(refusal)
        compare(leaf, sent, [root])

    def run(tbs: bytes) -> None:
        try:
            signed = Certificate.from_der(_sign_with_the_root(tbs))
        except TrustError as refusal:
            check_refusal(refusal)
            return
        check(signed)
        check(Certificate.from_der(device), signed)

    yield run


# ----------------------------------------------------------------------------------------------------------- HTTP


def check_reply(reply: Reply) -> None:
    """Not a 500, and headers that can be sent."""
    assert reply.status < 500, reply.body
    for name, value in wire_headers(reply).items():
        assert not set(name + value) & set("\r\n\0")
        (name + value).encode("latin-1")
    if reply.content_type == "application/problem+json" and reply.body:
        found = json.loads(reply.body)
        assert found["code"] in CODES
        assert found["detail"]


@contextmanager
def _http() -> Iterator[Run]:
    with closing(Arena()) as arena:
        yield lambda data: arena.run(lambda: check_reply(arena.answer(data)))


# --------------------------------------------------------------------------------------------------------- events


class _Everything:
    """A bucket in which every object is there: *data* whatever its name."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        assert uploaded.bucket == world.BUCKET, "another bucket was asked"
        return FoundObject(
            uploaded.bucket, uploaded.key, uploaded.version or "v1", uploaded.etag, len(self._data), NOON
        )

    def read(self, found: FoundObject) -> bytes | None:
        return self._data

    def remove(self, found: FoundObject) -> None:
        assert found.key.startswith(f"{world.ORG}/server/")


def _as_json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


@contextmanager
def _aws_event() -> Iterator[Run]:
    with closing(Arena()) as arena:
        objects = _Everything(world.root().pem.encode())
        recorder = Recorder(sleep=lambda seconds: None)

        def run(data: bytes) -> None:
            event = _as_json(data)
            arena.run(lambda: take(arena.service.app, objects, s3_uploads(event), bucket=world.BUCKET))
            arena.run(lambda: recorder(arena.service.app.context, sqs_bodies(event)))

        yield run


@contextmanager
def _cloud_event() -> Iterator[Run]:
    """As functions-framework reads it: headers, an empty line, the body."""
    with closing(Arena()) as arena:
        objects = _Everything(world.root().pem.encode())
        recorder = Recorder(sleep=lambda seconds: None)

        def run(data: bytes) -> None:
            head, _, body = data.partition(b"\n\n")
            lines = (line.partition(":") for line in head.decode("latin-1").split("\n"))
            try:
                event = from_http({name.strip().lower(): value.strip() for name, _, value in lines}, body)
            except (cloud_exceptions.GenericException, ValueError, RecursionError, TypeError, AttributeError):
                return  # the framework's, which answers 400
            uploads = gcs_uploads(event["type"], event["source"], event.data)
            arena.run(lambda: take(arena.service.app, objects, uploads, bucket=world.BUCKET))
            arena.run(lambda: recorder(arena.service.app.context, pubsub_body(event["type"], event.data)))

        yield run


@contextmanager
def _object_name() -> Iterator[Run]:
    with closing(Arena()) as arena:
        objects = _Everything(world.intermediate().pem.encode())
        uploads = Path("/nowhere/uploads")
        folder = FolderReader(uploads)

        def run(data: bytes) -> None:
            key = data.decode("utf-8", "surrogateescape")  # lone surrogates, which JSON can carry
            path = folder.path(key)
            assert path is None or Path(os.path.normpath(path)).is_relative_to(uploads)
            arena.run(lambda: _imported(arena, objects, key))

        yield run


def _imported(arena: Arena, objects: _Everything, key: str) -> None:
    for name in (key, f"{world.ORG}/ca/{key}", f"{world.ORG}/csr/{key}", f"{world.ORG}/{key}"):
        if name.startswith(f"{world.OTHER}/"):
            continue  # it is that org's: who may put an object below its prefix is the bucket's policy to say
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
    """A token as it is; or, where there are two lines, a header and claims that the issuer really signs."""
    with running_issuer() as issuer:
        tokens = OidcTokens(
            issuer=issuer.url, audience=AUDIENCE, org_claim="org", role_claim="role", clock=lambda: datetime.now(UTC)
        )
        signer = PyJWS()

        def run(data: bytes) -> None:
            header, newline, claims = data.partition(b"\n")
            text = data.decode("latin-1")
            if newline:
                said = _as_json(header)
                named = {"kid": "first", **said} if isinstance(said, dict) else {"kid": "first"}
                try:
                    claims = claims.replace(b"$ISSUER", issuer.url.encode())
                    text = signer.encode(claims, issuer.keys["first"], algorithm="RS256", headers=named)
                except (PyJWTError, ValueError, TypeError, RecursionError, NotImplementedError):
                    return  # no such token can be made
            found = tokens.verify(text)
            assert found.subject
            assert found.subject.isprintable()

        yield refusing(run)


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


TARGETS: Final[tuple[Target, ...]] = (
    Target("ca_file", _ca_file),
    Target("ca_signed", _ca_signed, most=CERTIFICATE_MAX + 64),
    Target("server_bundle", _server_bundle, bounds.KEY_FILE),
    Target("private_key", _private_key, bounds.KEY_FILE),
    Target("csr_answer", _csr_answer),
    Target("device_chain", _device_chain),
    Target("device_signed", _device_signed, most=CERTIFICATE_MAX + 64),
    Target("device_plain", _device_plain, most=CERTIFICATE_MAX + 64),
    Target("api", _http, bounds.KEY_FILE),
    Target("callout", _http),
    Target("dialect", _http),
    Target("sign_in", _sign_in, most=17 * 1024),
    Target("aws_event", _aws_event),
    Target("cloud_event", _cloud_event),
    Target("object_name", _object_name, most=2048),
    Target("name", _name, most=512),
)
BY_NAME: Final = {one.name: one for one in TARGETS}
