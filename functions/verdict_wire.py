"""What verifyClient takes and shows; apart from bodies.py and views.py, so that it loads nothing of other functions."""

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from functions.web.contract import Body, View
from shared.validation.verdict import Verdict


class VerifyClient(Body, frozen=True, kw_only=True):
    """What a connecting client shows.

    *certificate*: the leaf as PEM, or leaf and chain. *certificateDer*: the leaf as DER in base64, and *chainDer* what
    was sent after it, concatenated.
    """

    server_name: str | None = None
    client_id: str | None = None
    certificate: str | None = None
    certificate_der: str | None = None
    chain_der: str | None = None
    tls: bool = True
    explain: bool = False


class IdentityView(View, frozen=True, kw_only=True):
    """A device (`d`) or gateway (`g`)."""

    class_: str = msgspec.field(name="class")
    type_id: str
    device_id: str


class VouchingCA(View, frozen=True, kw_only=True):
    id: str
    subject: str


class Failing(View, frozen=True, kw_only=True):
    """The certificate at fault."""

    subject: str
    fingerprint_sha256: str = msgspec.field(name="fingerprintSha256")


class StepView(View, frozen=True, kw_only=True):
    """One of the ten steps."""

    number: int
    name: str
    status: str  # "passed", "failed" or "not reached"
    found: str | None
    expected: str | None


class VerdictView(View, frozen=True, kw_only=True):
    """May this client connect?

    *fingerprintsSha256*: where it may, the fingerprints of each certificate shown, leaf first. One signed with ECDSA
    has two: its signature can be written in two ways."""

    decision: str  # "allow", "deny" or "continue"
    code: str
    reason: str
    mend: str
    org_id: str | None
    identity: IdentityView | None
    bound: bool
    proof: str
    ca: VouchingCA | None
    failing: Failing | None
    expires_at: datetime | None
    fingerprints_sha256: tuple[tuple[str, ...], ...] = msgspec.field(name="fingerprintsSha256")
    watson_reason: int | None
    steps: tuple[StepView, ...] | UnsetType = UNSET


def verdict_view(verdict: Verdict, *, explain: bool = False) -> VerdictView:
    who, ca, failing = verdict.identity, verdict.ca, verdict.failing
    return VerdictView(
        decision=verdict.decision.value,
        code=verdict.code,
        reason=verdict.reason,
        mend=verdict.mend,
        org_id=verdict.org_id,
        identity=IdentityView(class_=who.client_class.value, type_id=who.type_id, device_id=who.device_id)
        if who
        else None,
        bound=verdict.bound,
        proof=verdict.proof,
        ca=VouchingCA(id=ca.id, subject=ca.certificate.subject_text) if ca else None,
        failing=Failing(subject=failing.subject_text, fingerprint_sha256=failing.fingerprint) if failing else None,
        expires_at=verdict.expires_at,
        fingerprints_sha256=verdict.fingerprints,
        watson_reason=verdict.watson_reason,
        steps=tuple(
            StepView(number=one.number, name=one.name, status=one.status, found=one.found, expected=one.expected)
            for one in verdict.steps
        )
        if explain
        else UNSET,
    )
