"""The settings of an organization: custom domains and type certificates."""

from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta

from functions.call import OPERATORS, VIEWERS, MemberCall, endpoint
from functions.registry import PREFIX
from functions.web.body import Body, read_body
from functions.web.conditions import if_match
from functions.web.contract import View
from functions.web.message import Reply, json_reply
from shared import errors, records
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


@endpoint(
    "PUT",
    SETTINGS,
    function=FUNCTION,
    roles=OPERATORS,
    summary="Change the org's settings; what is not sent stays as it is",
    body=PutSettings,
    if_match="required",
    answers={200: SettingsView},
    refusals=(errors.DomainReserved, errors.DomainInUse, errors.InvalidPolicy, errors.Stale),
)
def put_settings(call: MemberCall) -> Reply:
    body = read_body(call.request, PutSettings)
    domains = body.custom_domains
    org = change_settings(
        call.context,
        call.member,
        custom_domains=records.CustomDomainSettings(domains.enabled, domains.domains) if domains is not None else None,
        type_certificates=body.type_certificates,
        expected_version=if_match(call.request),
    )
    return _reply(org)
