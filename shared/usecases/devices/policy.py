"""connectionPolicy: the policy and its dry run, the org's settings."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from shared.errors import DomainInUse, DomainReserved, InvalidPolicy, NotFound
from shared.records import CustomDomains, Org, Settings
from shared.repository import org_ref, server_ref
from shared.usecases.callers import Member
from shared.usecases.context import Context, check_version, entry, touched
from shared.usecases.devices.usage import lately
from shared.usecases.edges.host_names import covered_hosts, hosts_of
from shared.usecases.edges.hosts import publish_hosts
from shared.validation.names import DeviceName, is_domain, messaging_host
from shared.validation.policy import Decision, Level, Policy, changed_types, check_policy, outcome
from shared.x509.certificate import Certificate

DOMAINS_MAX: Final = 10


def put_policy(context: Context, member: Member, policy: Policy, *, seen: str | None) -> Org:
    """Replace the policy; in force at the next connection. Raises: InvalidPolicy, Stale."""
    check_policy(policy)
    at = context.clock()

    def alter(before: Org | None) -> Org:
        org = _present(before)
        check_version(org.policy_changed, seen)
        if org.policy == policy:
            return org
        line = entry(at, member.who, "connectionPolicy", default=policy.default.value, rules=str(len(policy.rules)))
        stamp = touched(org.policy_changed, at, member.who)
        return msgspec.structs.replace(org, policy=policy, policy_changed=stamp, outbox=(line,))

    return _present(context.repository.change(org_ref(member.org_id), alter, org_id=member.org_id))


class DryRun(msgspec.Struct, frozen=True):
    """What a policy would change.

    Args:
        changed: (device type, level now, level then).
        identities: how many clients the sample of the last 30 days holds; *since*: its oldest.
        refused: how many of them get in now and would be refused then; *refused_types*: their types.
    """

    changed: Sequence[tuple[str, Level, Level]]
    identities: int
    since: datetime | None
    refused: int
    refused_types: Sequence[str]


def dry_run(context: Context, member: Member, policy: Policy) -> DryRun:
    """What *policy* would change, by the clients seen lately. Raises: InvalidPolicy."""
    check_policy(policy)
    now = member.org.policy
    clients = [
        (device, seen)
        for identity, seen in lately(context.repository, member.org_id, context.clock()).clients().items()
        if (device := DeviceName.parse(identity)) is not None
    ]
    refused: Counter[str] = Counter()
    for device, seen in clients:
        before = outcome(now.level_for(device.type_id), tls=seen.tls, presence=seen.shown)
        after = outcome(policy.level_for(device.type_id), tls=seen.tls, presence=seen.shown)
        if after is Decision.DENY and before is not Decision.DENY:
            refused[device.type_id] += 1
    return DryRun(
        changed=changed_types(now, policy, [device.type_id for device, _ in clients]),
        identities=len(clients),
        since=min((seen.at for _, seen in clients), default=None),
        refused=refused.total(),
        refused_types=sorted(refused),
    )


def put_settings(
    context: Context,
    member: Member,
    *,
    custom_domains: CustomDomains | None,
    type_certificates: bool | None,
    seen: str | None,
) -> Org:
    """Change the settings; None leaves one as it is. Raises: InvalidPolicy, DomainReserved, DomainInUse, Stale."""
    wanted_domains = None if custom_domains is None else _checked(context, custom_domains)
    at = context.clock()

    def alter(before: Org | None) -> Org:
        org = _present(before)
        check_version(org.settings_changed, seen)
        settings = Settings(
            org.settings.custom_domains if wanted_domains is None else wanted_domains,
            org.settings.type_certificates if type_certificates is None else type_certificates,
        )
        if org.settings == settings:
            return org
        _check_active_keeps_a_host(context, org, settings)
        line = entry(
            at,
            member.who,
            "settings",
            domains=",".join(settings.domains),
            typeCertificates=str(settings.type_certificates).lower(),
        )
        stamp = touched(org.settings_changed, at, member.who)
        return msgspec.structs.replace(org, settings=settings, settings_changed=stamp, outbox=(line,))

    after = _present(context.repository.change(org_ref(member.org_id), alter, org_id=member.org_id))
    publish_hosts(context, member.org_id)
    return after


def _checked(context: Context, custom: CustomDomains) -> CustomDomains:
    """Custom domains in the form they are kept: lower-case A-labels, each once."""
    domains = tuple(dict.fromkeys(domain.lower().removesuffix(".") for domain in custom.domains))
    if len(domains) > DOMAINS_MAX:
        raise InvalidPolicy(
            field="customDomains.domains", found=f"At most {DOMAINS_MAX} domains can be listed", hint="List fewer."
        )
    for number, domain in enumerate(domains):
        field = f"customDomains.domains[{number}]"
        # "orgId.messaging." stands before it, and a DNS name has at most 253 characters (RFC 1035, 2.3.4).
        if not is_domain(domain) or len(messaging_host("x" * 6, domain)) > 253:
            raise InvalidPolicy(
                field=field,
                found="This is not a domain name",
                hint="Write it like iot.example.com; other scripts in their A-label form, xn--…",
            )
        platform = context.platform_domain
        if domain == platform or domain.endswith(f".{platform}") or platform.endswith(f".{domain}"):
            raise DomainReserved(field=field, domain=domain)
    return CustomDomains(custom.enabled, domains)


def _check_active_keeps_a_host(context: Context, org: Org, after: Settings) -> None:
    """A custom domain that the active certificate needs cannot be removed: without it, it would cover no host."""
    gone = [domain for domain in org.settings.domains if domain not in after.domains]
    listed = org.servers.get(org.activation.active)
    if not gone or listed is None:
        return
    record = context.repository.get(server_ref(org.org_id, org.activation.active))
    if record is None or record.leaf is None:
        return
    leaf = Certificate.from_der(record.leaf)
    if not covered_hosts(leaf, hosts_of(org.org_id, context.platform_domain, after)):
        used = [domain for domain in gone if covered_hosts(leaf, [messaging_host(org.org_id, domain)])]
        for domain in used:
            raise DomainInUse(host=messaging_host(org.org_id, domain), domain=domain)


def _present(org: Org | None) -> Org:
    if org is None:
        raise NotFound(what="such organization")
    return org
