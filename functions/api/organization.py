"""The settings of an organization: custom domains and type certificates."""

from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta
from msgspec.structs import replace

from functions.api.rehearsal_view import CLIENT, Judged, judge_change
from functions.call import OPERATORS, VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.body import Body, read_body
from functions.web.conditions import if_match
from functions.web.contract import View
from functions.web.message import Reply, json_reply
from shared import errors, records
from shared.usecases.devices.rehearsal import with_settings
from shared.usecases.orgs.settings import plan_settings
from shared.usecases.orgs.settings import put_settings as change_settings

SETTINGS: Final = PREFIX + "/authorization/settings"
FUNCTION: Final = "connectionPolicy"


class CustomDomainsView(View, frozen=True, kw_only=True):
    enabled: bool
    domains: tuple[str, ...]


class SettingsView(View, frozen=True, kw_only=True):
    custom_domains: CustomDomainsView
    type_certificates: bool
    updated_at: datetime
    updated_by: str
    version: str


def _reply(org: records.Org) -> Reply:
    settings, revision = org.settings, org.settings_changed
    domains = settings.custom_domains
    view = SettingsView(
        custom_domains=CustomDomainsView(enabled=domains.enabled, domains=domains.domains),
        type_certificates=settings.type_certificates,
        updated_at=revision.updated_at,
        updated_by=revision.updated_by,
        version=revision.version,
    )
    return json_reply(view, version=revision.version)


@endpoint(
    "GET",
    SETTINGS,
    function=FUNCTION,
    roles=VIEWERS,
    summary="The org's settings",
    answers={200: SettingsView},
)
def get_settings(call: MemberCall) -> Reply:
    return _reply(call.member.org)


class CustomDomains(Body, frozen=True, kw_only=True):
    enabled: bool
    domains: tuple[Annotated[str, Meta(max_length=255)], ...] = ()


class PutSettings(Body, frozen=True, kw_only=True):
    """What is not sent stays as it is."""

    custom_domains: CustomDomains | None = None
    type_certificates: bool | None = None


class SettingsEffect(View, frozen=True, kw_only=True):
    """What a change of the settings would do. *hosts*: the messaging hosts that devices could no longer use."""

    hosts: tuple[str, ...]
    judged: Judged


def _reply_effect(call: MemberCall, settings: records.OrgSettings) -> Reply:
    org, platform = call.member.org, call.context.platform_domain
    kept = replace(org, settings=settings).hosts(platform)
    removed = tuple(host for host in org.hosts(platform) if host not in kept)
    return json_reply(SettingsEffect(hosts=removed, judged=judge_change(call, with_settings(settings))))


@endpoint(
    "PUT",
    SETTINGS,
    function=FUNCTION,
    roles=OPERATORS,
    summary="Change the org's settings; what is not sent stays as it is; with dryrun=true, what that would do",
    body=PutSettings,
    query={"dryrun": "true: only answer what the change would do", "client": CLIENT},
    if_match="required",
    answers={200: (SettingsView, SettingsEffect)},
    refusals=(errors.DomainReserved, errors.DomainInUse, errors.InvalidPolicy, errors.Stale),
)
def put_settings(call: MemberCall) -> Reply:
    body = read_body(call.request, PutSettings)
    sent = body.custom_domains
    domains = records.CustomDomainSettings(sent.enabled, sent.domains) if sent is not None else None
    if call.request.flag("dryrun"):
        return _reply_effect(call, plan_settings(call.context, call.member.org, domains, body.type_certificates))
    org = change_settings(
        call.context,
        call.member,
        custom_domains=domains,
        type_certificates=body.type_certificates,
        expected_version=if_match(call.request),
    )
    return _reply(org)
