"""verifyClient: may this client connect? The native form."""

from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from functions.call import Call, credentials_of, open_endpoint
from functions.dialects.dialect import VALUES_MAX, EncodingDialect, Names, deny, peek
from functions.dialects.failing import Failing
from functions.registry import PREFIX, VERIFY_CLIENT
from functions.web.body import FORM_DATA, Body, file_bytes, media_type, read_body
from functions.web.contract import View
from functions.web.message import Reply, Request, json_reply
from functions.web.problem import problem
from shared.errors import NotAuthenticated, StoreUnavailable, TrustError
from shared.usecases.callers import BearerToken, Caller, Credentials, identify
from shared.usecases.devices.verify import MAY_EXPLAIN, verify_client
from shared.validation.presented import ConnectingClient
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


class StepView(View, frozen=True, kw_only=True):
    """One of the ten steps."""

    number: int
    name: str
    status: str  # "passed", "failed" or "not reached"
    found: str | None
    expected: str | None


class CureView(View, frozen=True):
    """One change after which the client passes: *action*, and the *value* to set; *decision* is what it would get."""

    action: str
    value: str
    decision: str


class VerdictView(View, frozen=True, kw_only=True):
    """May this client connect?

    *fingerprintsSha256*: where it may, the fingerprints of each certificate shown, leaf first. One signed with ECDSA
    has two: its signature can be written in two ways. *keyDigests*, *serialDigests*: where it may and its chain was
    judged, digests of each certificate on the accepted path, leaf first, and *basis*: to be registered with the session
    and sent with a recheck."""

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
    key_digests: tuple[str, ...] | UnsetType = UNSET
    serial_digests: tuple[str, ...] | UnsetType = UNSET
    basis: str | UnsetType = UNSET
    watson_reason: int | None
    steps: tuple[StepView, ...] | UnsetType = UNSET
    cures: tuple[CureView, ...] | UnsetType = UNSET


def _view(verdict: Verdict, *, explain: bool = False) -> VerdictView:
    device, ca, failing = verdict.identity, verdict.ca, verdict.failing
    return VerdictView(
        decision=verdict.decision.value,
        code=verdict.code,
        reason=verdict.reason,
        mend=verdict.mend,
        org_id=verdict.org_id,
        identity=IdentityView(class_=device.client_class.value, type_id=device.type_id, device_id=device.device_id)
        if device
        else None,
        bound=verdict.bound,
        proof=verdict.proof,
        ca=VouchingCA(id=ca.id, subject=ca.subject) if ca else None,
        failing=Failing(subject=failing.subject_text, fingerprint_sha256=failing.fingerprint) if failing else None,
        expires_at=verdict.expires_at,
        fingerprints_sha256=verdict.fingerprints,
        key_digests=verdict.key_digests or UNSET,
        serial_digests=verdict.serial_digests or UNSET,
        basis=verdict.basis or UNSET,
        watson_reason=verdict.watson_reason,
        steps=_steps(verdict) if explain else UNSET,
        cures=tuple(CureView(cure.action.value, cure.value, cure.decision.value) for cure in verdict.cures) or UNSET,
    )


def _steps(verdict: Verdict) -> tuple[StepView, ...]:
    return tuple(
        StepView(number=step.number, name=step.name, status=step.status, found=step.found, expected=step.expected)
        for step in verdict.steps
    )


class _Names(Names, frozen=True):
    """The names in `VerifyClient`."""

    server_name: str | None = msgspec.field(default=None, name="serverName")
    client_id: str | None = msgspec.field(default=None, name="clientId")


class _Native(EncodingDialect):
    """A caller's own mistakes are problem documents; all that a device controls is a verdict, and so is a failure."""

    def encode(self, verdict: Verdict) -> Reply:
        return json_reply(_view(verdict))

    def names(self, request: Request) -> Names:
        return peek(request, _Names)

    def refuse(self, request: Request, error: Exception) -> Reply:
        if isinstance(error, TrustError) and not isinstance(error, StoreUnavailable):
            return problem(request, error)
        try:
            org_id = credentials_of(request).org_id
        except NotAuthenticated:
            org_id = None
        return self.encode(replace(deny(error), org_id=org_id))


DIALECT: Final = _Native()


@open_endpoint(
    "POST",
    PREFIX + "/authorization/verifyclient",
    alias=True,
    function=VERIFY_CLIENT,
    roles=frozenset(MAY_EXPLAIN),
    operation_id="verify_client",
    summary="May this client connect?",
    body=VerifyClient,
    answers={200: VerdictView},
)
def ask(call: Call) -> Reply:
    sent: Credentials | BearerToken | Caller = call.authorization  # without it, the body does not matter
    if media_type(call.request) == FORM_DATA:  # a form costs more to read than JSON, so that the key is read first
        sent = identify(call.context, call.app.tokens, call.authorization, MAY_EXPLAIN)
    body = read_body(call.request, VerifyClient, values_max=VALUES_MAX)
    verdict = verify_client(call.verifier, sent, _client(body), explain=body.explain)
    return json_reply(_view(verdict, explain=body.explain))


def _client(body: VerifyClient) -> ConnectingClient:
    leaf = file_bytes(body.certificate_der, "certificateDer") if body.certificate_der else None
    if leaf is None and body.certificate:
        leaf = file_bytes(body.certificate, "certificate")
    chain = file_bytes(body.chain_der, "chainDer") if body.chain_der else b""
    return ConnectingClient(
        server_name=body.server_name, client_id=body.client_id, certificate=leaf, chain=chain, tls=body.tls
    )
