"""connectionPolicy: what a client must present, the org's settings, and its deny list."""

from functions import bodies, views
from functions.web.contract import PAGING, Call, endpoint
from functions.web.http import NO_CONTENT, Reply, file_bytes, if_match, page, reply
from shared import errors
from shared.records import CustomDomainSettings, Org
from shared.usecases.devices import deny_list as denials
from shared.usecases.devices import policy as usecase
from shared.usecases.orgs import settings as settings_usecase
from shared.validation.policy import Policy, Rule


@endpoint("The connection security policy", {200: views.PolicyView})
def get_policy(call: Call) -> Reply:
    return _policy(call.member.org)


@endpoint(
    "Replace the connection security policy",
    {200: views.PolicyView},
    body=bodies.PutPolicy,
    if_match="required",
    refusals=(errors.InvalidPolicy, errors.Stale),
)
def put_policy(call: Call) -> Reply:
    policy = _read(call.request.fields(bodies.PutPolicy))
    return _policy(usecase.put_policy(call.context, call.member, policy, expected_version=if_match(call.request)))


@endpoint(
    "What a policy would change, and which of the clients seen lately it would refuse",
    {200: views.DryRunView},
    body=bodies.PutPolicy,
    refusals=(errors.InvalidPolicy,),
)
def dry_run_policy(call: Call) -> Reply:
    found = usecase.dry_run(call.context, call.member, _read(call.request.fields(bodies.PutPolicy)))
    view = views.DryRunView(
        changed=tuple(
            views.LevelChange(device_type=name, from_=old.value, to=new.value) for name, old, new in found.changed
        ),
        sample=views.Sample(identities=found.identities, since=found.since),
        refused=found.refused,
        refused_types=tuple(found.refused_types),
    )
    return reply(view)


def _read(body: bodies.PutPolicy) -> Policy:
    return Policy(body.default, tuple(Rule(rule.device_type, rule.level) for rule in body.rules))


def _policy(org: Org) -> Reply:
    policy, changed = org.policy, org.policy_changed
    view = views.PolicyView(
        default=policy.default.value,
        rules=tuple(views.LevelRule(device_type=one.device_type, level=one.level.value) for one in policy.rules),
        updated_at=changed.updated_at,
        updated_by=changed.updated_by,
        version=changed.version,
    )
    return reply(view, version=changed.version)


@endpoint("The org's settings", {200: views.SettingsView})
def get_settings(call: Call) -> Reply:
    return _settings(call.member.org)


@endpoint(
    "Change the org's settings; what is not sent stays as it is",
    {200: views.SettingsView},
    body=bodies.PutSettings,
    if_match="required",
    refusals=(errors.DomainReserved, errors.DomainInUse, errors.InvalidPolicy, errors.Stale),
)
def put_settings(call: Call) -> Reply:
    body = call.request.fields(bodies.PutSettings)
    domains = body.custom_domains
    org = settings_usecase.put_settings(
        call.context,
        call.member,
        custom_domains=CustomDomainSettings(domains.enabled, domains.domains) if domains is not None else None,
        type_certificates=body.type_certificates,
        expected_version=if_match(call.request),
    )
    return _settings(org)


def _settings(org: Org) -> Reply:
    settings, changed = org.settings, org.settings_changed
    view = views.SettingsView(
        custom_domains=views.CustomDomainsView(
            enabled=settings.custom_domains.enabled, domains=settings.custom_domains.domains
        ),
        type_certificates=settings.type_certificates,
        updated_at=changed.updated_at,
        updated_by=changed.updated_by,
        version=changed.version,
    )
    return reply(view, version=changed.version)


@endpoint("The deny list", {200: views.DenialList}, query=PAGING)
def list_denials(call: Call) -> Reply:
    limit, after = page(call.request)
    found = denials.list_denials(call.context, call.member.org_id, after=after, limit=limit + 1)
    results = tuple(views.denial_view(one) for one in found[:limit])
    return reply(views.DenialList(results=results, bookmark=results[-1].id if len(found) > limit else None))


@endpoint(
    "Refuse a certificate, a serial number or a device from now on",
    {201: views.DenialView, 200: views.DenialView},
    body=bodies.Deny,
    refusals=(errors.InvalidDenial, errors.NotFound, errors.Rejected),
)
def deny(call: Call) -> Reply:
    body = call.request.fields(bodies.Deny)
    denial, new = denials.deny(
        call.context,
        call.member,
        kind=body.kind,
        value=body.value,
        certificate=file_bytes(body.certificate, "certificate") if body.certificate is not None else None,
        reason=body.reason,
    )
    return reply(views.denial_view(denial), status=201 if new else 200)


@endpoint("Take an entry off the deny list", {204: None}, refusals=(errors.NotFound,))
def lift(call: Call) -> Reply:
    denials.lift(call.context, call.member, call.id)
    return NO_CONTENT
