"""The settings of an organization."""

from datetime import datetime
from typing import Final

import msgspec

from shared.errors import DomainInUse, DomainReserved, InvalidPolicy
from shared.records import CustomDomainSettings, Org, OrgSettings, Withdrawal
from shared.usecases.callers import Member
from shared.usecases.context import Context, check_version, make_entry, update_revision
from shared.usecases.edges.hosts import HostFeed, load_leaf
from shared.usecases.edges.withdrawals import WithdrawalKind, make_withdrawal, publish_waiting
from shared.usecases.organization import Organization
from shared.usecases.servers.documents import ServerCertificates
from shared.validation.names import is_domain, messaging_host
from shared.validation.server_cert import hosts_covered

DOMAINS_MAX: Final = 10
_DNS_NAME_MAX: Final = 253  # characters (RFC 1035, 2.3.4)


def put_settings(
    context: Context,
    member: Member,
    *,
    custom_domains: CustomDomainSettings | None,
    type_certificates: bool | None,
    expected_version: str | None,
) -> Org:
    """Change the settings; None leaves a setting as it is.

    Raises: InvalidPolicy, DomainReserved, DomainInUse, Stale."""
    at = context.clock()
    for attempt in Organization(context.of(member.org)).changing():
        with attempt as org:
            check_version(org.settings_changed, expected_version)
            settings = plan_settings(context, org, custom_domains, type_certificates)
            if org.settings != settings:
                stamp = update_revision(org.settings_changed, at, member.who)
                before = org.settings
                org = msgspec.structs.replace(org, settings=settings, settings_changed=stamp)
                activity = make_entry(
                    at,
                    member.who,
                    "settings",
                    domains=",".join(settings.domains),
                    typeCertificates=str(settings.type_certificates).lower(),
                )
                attempt.write(org, activity=activity, withdrawals=_withdrawals(at, org.org_id, before, settings))
    HostFeed(context).publish(member.org_id)
    publish_waiting(context, attempt.waiting)
    return org


def plan_settings(
    context: Context, org: Org, custom_domains: CustomDomainSettings | None, type_certificates: bool | None
) -> OrgSettings:
    """Return the settings of *org* with a change; None leaves a setting as it is.

    Raises: InvalidPolicy, DomainReserved, DomainInUse."""
    settings = OrgSettings(
        org.settings.custom_domains if custom_domains is None else _check_domains(context, custom_domains),
        org.settings.type_certificates if type_certificates is None else type_certificates,
    )
    if org.settings != settings:
        _check_active_keeps_a_host(context, org, settings)  # reads the certificate that is active now
    return settings


def _withdrawals(at: datetime, org_id: str, before: OrgSettings, after: OrgSettings) -> list[Withdrawal]:
    """Return the withdrawal of the sessions that rest on a setting that was taken away."""
    is_narrower = set(before.domains) - set(after.domains) or (before.type_certificates and not after.type_certificates)
    return [make_withdrawal(at, org_id, WithdrawalKind.RECHECK, "settings")] if is_narrower else []


def _check_domains(context: Context, custom: CustomDomainSettings) -> CustomDomainSettings:
    """Return *custom* in its stored form: lower-case A-labels, without repetitions.

    Raises: InvalidPolicy, DomainReserved."""
    domains = tuple(dict.fromkeys(domain.lower().removesuffix(".") for domain in custom.domains))
    if len(domains) > DOMAINS_MAX:
        raise InvalidPolicy(
            field="customDomains.domains", found=f"At most {DOMAINS_MAX} domains can be listed", hint="List fewer."
        )
    platform = context.platform_domain
    for number, domain in enumerate(domains):
        field = f"customDomains.domains[{number}]"
        if not is_domain(domain) or len(messaging_host("x" * 6, domain)) > _DNS_NAME_MAX:
            raise InvalidPolicy(
                field=field,
                found="This is not a domain name",
                hint="Write it like iot.example.com; other scripts in their A-label form, xn--…",
            )
        if domain == platform or domain.endswith(f".{platform}") or platform.endswith(f".{domain}"):
            raise DomainReserved(field=field, domain=domain)
    return CustomDomainSettings(custom.enabled, domains)


def _check_active_keeps_a_host(context: Context, org: Org, settings: OrgSettings) -> None:
    """Refuse to remove a custom domain without which the active certificate would cover no host.

    Raises: DomainInUse."""
    removed = [domain for domain in org.settings.domains if domain not in settings.domains]
    if not removed or org.activation.active not in org.servers:
        return
    record = ServerCertificates(context.of(org)).find_record(org.activation.active)
    if record is None or record.leaf is None:
        return
    leaf = load_leaf(record.leaf)
    if not hosts_covered(leaf, msgspec.structs.replace(org, settings=settings).hosts(context.platform_domain)):
        for domain in removed:
            host = messaging_host(org.org_id, domain)
            if hosts_covered(leaf, [host]):
                raise DomainInUse(host=host, domain=domain)
