"""Make the input of the benchmarks: a fleet's certificates as vendors issue them, and an org that trusts them."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from shared.composition import App, build
from shared.config import Settings, SQLite
from shared.records import DenialKind, Role
from shared.usecases.callers import Caller, Credentials, Member
from shared.usecases.cas.documents import CACertificates
from shared.usecases.cas.manage import upload_ca
from shared.usecases.devices.deny_list import deny
from shared.usecases.devices.memory import VerdictMemory
from shared.usecases.devices.verify import verify_client
from shared.usecases.orgs.api_keys import create_key
from shared.usecases.orgs.organizations import create_org, get_org
from shared.validation.policy import Decision
from shared.validation.presented import ConnectingClient
from shared.validation.verdict import Verdict
from tests.support import certs
from tests.support.harness import basic

DOMAIN: Final = "example.com"
ORG: Final = "mtxpd0"
KINDS: Final = ("RSA-2048", "P-256")
_OLD: Final = dt.timedelta(days=30)


@dataclass(frozen=True)
class Fleet:
    """A root that the org registers, an intermediate below it, and devices whose leaves the intermediate signed."""

    kind: str
    root: certs.Issued
    intermediate: certs.Issued
    devices: tuple[certs.Issued, ...]

    @property
    def sent(self) -> tuple[bytes, ...]:
        """Return what each device sends: its leaf and the intermediate, as PEM."""
        return tuple(certs.bundle(device, self.intermediate).encode() for device in self.devices)


def make_fleet(kind: str, size: int) -> Fleet:
    """Make *size* devices with keys of *kind* ("RSA-2048", "P-256"), each with a certificate of its own.

    The extensions are those of `openssl x509 -req` with the extension file in vendors' guides: BasicConstraints,
    KeyUsage, ExtendedKeyUsage, and both key identifiers.
    """
    root = _ca("Fleet Root", None, certs.key(kind, 1))
    intermediate = _ca("Fleet Devices CA", root, certs.key(kind, 2))
    devices = tuple(
        _leaf(f"d:thermo:{number:06}", intermediate, certs.key(kind, 3 + number % 5)) for number in range(size)
    )
    return Fleet(kind, root, intermediate, devices)


def _ca(name: str, signer: certs.Issued | None, key: certs.PrivateKey) -> certs.Issued:
    now = dt.datetime.now(dt.UTC)
    return certs.ca(
        certs.name(name, organization="Fleet Maker"),
        signer,
        private=key,
        key_usage=certs.usage(key_cert_sign=True, crl_sign=True),
        more=_key_ids(key, signer),
        not_before=now - _OLD,
        not_after=now + 10 * certs.YEAR,
    )


def _leaf(name: str, signer: certs.Issued, key: certs.PrivateKey) -> certs.Issued:
    now = dt.datetime.now(dt.UTC)
    return certs.leaf(
        certs.name(name, organization="Fleet Maker"),
        signer,
        private=key,
        extended_key_usage=[certs.CLIENT_AUTH],
        key_usage=certs.usage(digital_signature=True),
        more=[(x509.BasicConstraints(False, None), True), *_key_ids(key, signer)],
        not_before=now - _OLD,
        not_after=now + certs.YEAR,
    )


def _key_ids(key: certs.PrivateKey, signer: certs.Issued | None) -> list[tuple[x509.ExtensionType, bool]]:
    own: list[tuple[x509.ExtensionType, bool]] = [(x509.SubjectKeyIdentifier.from_public_key(_public(key)), False)]
    if signer is not None:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(signer.key))
        own.append((issuer, False))
    return own


def _public(key: certs.PrivateKey) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    public = key.public_key()
    assert isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return public


@dataclass(frozen=True)
class Deployment:
    """The functions' use cases on a store, with one org and a broker's key."""

    app: App
    broker: Credentials

    @property
    def forgetful(self) -> "Deployment":
        """Return a deployment on the same store that remembers no verdict: each device is there for the first time."""
        verifier = msgspec.structs.replace(self.app.verifier, memory=VerdictMemory(0))
        return Deployment(msgspec.structs.replace(self.app, verifier=verifier), self.broker)

    def deny(self, count: int) -> None:
        """Put *count* devices, serial numbers, fingerprints and keys, which no device has, on the org's deny list."""
        context = self.app.context
        member = Member(Caller("benchmark", Role.OPERATOR, ORG), get_org(context, ORG))
        ca_id = next(iter(CACertificates(context.of(member.org)).iterate()))[0]
        for number in range(count):
            value = f"{number:064x}"
            kinds = (
                (DenialKind.IDENTITY, f"d:denied:{number:06}"),
                (DenialKind.SERIAL, f"{ca_id}:{number + (1 << 64):x}"),
                (DenialKind.FINGERPRINT, value),
                (DenialKind.KEY, value),
            )
            kind, value = kinds[number % len(kinds)]
            deny(context, member, kind=kind, value=value)

    def decide(self, sent: bytes, number: int, org_id: str = ORG) -> Verdict:
        """Decide about one device as the function does: from the bytes that the broker sends to the verdict."""
        host, client_id = f"{org_id}.messaging.{DOMAIN}", f"d:{org_id}:thermo:{number:06}"
        client = ConnectingClient(server_name=host, client_id=client_id, certificate=sent)
        return verify_client(self.app.verifier, self.broker, client)

    def encode_questions(self, of: Fleet) -> list[bytes]:
        """Return the JSON body of a broker's request to verifyClient about each device."""
        host = f"{ORG}.messaging.{DOMAIN}"
        return [
            msgspec.json.encode(
                {"serverName": host, "clientId": f"d:{ORG}:thermo:{number:06}", "certificate": sent.decode()}
            )
            for number, sent in enumerate(of.sent)
        ]

    @property
    def authorization(self) -> str:
        """Return the broker's Authorization header."""
        return basic(self.broker.key, self.broker.token)

    def decisions(self, of: Fleet, orgs: Sequence[str] = (ORG,)) -> Callable[[], Verdict]:
        """Return a function that decides about the next device of a fleet, at the next of *orgs*.

        No device comes twice in a row. After the first round every device is one that was seen before.

        Raises: RuntimeError, if a device is refused.
        """
        devices, where = cycle(enumerate(of.sent)), cycle(orgs)

        def decide() -> Verdict:
            number, sent = next(devices)
            return self.decide(sent, number, next(where))

        if (verdict := decide()).decision is not Decision.ALLOW:
            raise RuntimeError(f"a good device is refused: {verdict.reason}")
        return decide


@contextmanager
def deployment(folder: Path, *trusted: certs.Issued, platform: bool = False) -> Iterator[Deployment]:
    """Open an empty SQLite store in *folder* with one org that trusts the CAs *trusted*."""
    app = build(settings(folder))
    try:
        yield deploy(app, *trusted, platform=platform)
    finally:
        app.close()


def settings(folder: Path) -> Settings:
    """Return settings without metrics: a count of decisions would be mixed into the output of the benchmarks."""
    return Settings(data=folder, store=SQLite(folder / "trust.db"), domain=DOMAIN, metrics="off")


def deploy(app: App, *trusted: certs.Issued, platform: bool = False) -> Deployment:
    """Create an org that trusts the CAs *trusted*, with a broker's key.

    Args:
        platform: the broker's key belongs to the platform, and asks for every org.
    """
    org = create_org(app.context, ORG)
    key, token = create_key(app.context, org_id=None if platform else ORG, role=Role.BROKER)
    for ca in trusted:
        upload_ca(app.context, Member(Caller("benchmark", Role.OPERATOR, ORG), org), ca.pem.encode())
    return Deployment(app, Credentials(key.key, token))
