"""May this client connect, where the broker brings only names? (docs/rules.md, "Names without a certificate")

A broker that has judged the certificate itself passes the CN as the user name. It is believed only for a key that says
so (`--proof broker`), meant for a listener whose CA list is that org's alone; the deny list's identities and the policy
are in force all the same. Otherwise the client is as one without a certificate.
"""

from functools import cached_property

import msgspec

from shared import errors
from shared.validation.names import ClientId, DeviceName
from shared.validation.policy import Decision, Presence, outcome
from shared.validation.verdict import OrgFacts, Verdict, identity_id
from shared.x509.validity import shown_time

CHAIN, BROKER = "chain", "broker"  # what a verdict rests on


class Named(msgspec.Struct, frozen=True, dict=True):
    """What a broker says of a client.

    *typed*: the client typed the name; it was not read from a certificate."""

    username: str | None
    client_id: str | None = None
    typed: bool = False

    @cached_property
    def device(self) -> DeviceName | None:
        """The identity the user name reads as."""
        return DeviceName.parse(self.username) if self.username else None

    @cached_property
    def client(self) -> ClientId | errors.ClientIdInvalid | None:
        if not self.client_id:
            return None
        try:
            return ClientId.parse(self.client_id)
        except errors.ClientIdInvalid as refusal:
            return refusal

    @property
    def denials(self) -> list[str]:
        """The deny list's look-up ids of every device this may be."""
        named = self.client.device if isinstance(self.client, ClientId) else None
        return sorted({identity_id(one) for one in (self.device, named) if one is not None and not one.is_type})


def judge_named(named: Named, facts: OrgFacts | None, *, believed: bool, platform_domain: str) -> Verdict:
    """The verdict on *named*, in the order of the ten steps; those about a certificate are the broker's.

    Args:
        facts: of the org of the caller's key; None where it does not exist, or the key is the platform's.
        believed: whether the key says that the broker proves names."""
    proven = believed and not named.typed
    try:
        return _judged(named, facts, proven, platform_domain)
    except errors.TrustError as refusal:
        return Verdict(
            Decision.DENY,
            refusal.code,
            refusal.reason,
            refusal.advice,
            org_id=facts.org_id if facts else None,
            proof=BROKER if proven else CHAIN,
            shown=Presence.INVALID if proven else Presence.NONE,
        )


def _judged(named: Named, facts: OrgFacts | None, proven: bool, platform_domain: str) -> Verdict:
    if facts is None:
        raise errors.OrgUnknown(domain=platform_domain)
    if facts.suspended:
        raise errors.OrgSuspended
    client = named.client
    if isinstance(client, errors.ClientIdInvalid):
        raise errors.ClientIdInvalid(org=facts.org_id)
    if client is not None and client.org_id != facts.org_id:
        raise errors.OrgMismatch(what="Client ID", a=client.org_id, where="the caller's key", b=facts.org_id)
    for denied in (one for look_up in named.denials for one in facts.denied.get(look_up, ())):
        raise errors.CertificateRevoked(time=shown_time(denied.since))
    if client is not None and client.device is None:  # an application: the broker asks for its API key
        return _satisfied(facts, None, Decision.CONTINUE, bound=True, proven=False)
    expected = client.device if client else None
    device = _identity(named, expected, facts) if proven else expected or named.device
    level = facts.policy.level_for(device.type_id if device else None)
    decision = outcome(level, tls=True, shown=Presence.VALID if proven else Presence.NONE)
    if decision is Decision.DENY:
        raise errors.CertificateMissing(level=level.value)
    return _satisfied(facts, device if proven else expected, decision, bound=client is not None, proven=proven)


def _identity(named: Named, expected: DeviceName | None, facts: OrgFacts) -> DeviceName:
    """The device that the proven name speaks for (step 10)."""
    found = named.device
    if found is None:
        raise errors.IdentityMissing(found="the user name is not of the form d:type:device", name="d:type:device")
    if expected is None:
        if found.is_type:
            raise errors.IdentityMissing(
                found=f"{found} stands for a type, and no client ID is known", name="d:type:device"
            )
        return found
    if not found.speaks_for(expected):
        raise errors.IdentityMismatch(found=str(found), expected=str(expected))
    if found.is_type and not facts.type_certificates:
        raise errors.TypeCertificateRefused(type=found.type_id)
    return expected


def _satisfied(facts: OrgFacts, device: DeviceName | None, decision: Decision, *, bound: bool, proven: bool) -> Verdict:
    if decision is Decision.ALLOW:
        code, reason = "allowed", f"{device} is let in."
    else:
        code, reason = "token_required", "Certificate part passed; the broker asks for the token next."
    return Verdict(
        decision,
        code,
        reason,
        org_id=facts.org_id,
        identity=device,
        bound=bound,
        proof=BROKER if proven else CHAIN,
        shown=Presence.VALID if proven else Presence.NONE,
    )
