"""What a verdict must know of an organization, from its document and what was looked up for a client."""

from collections.abc import Mapping, Sequence

from shared.records import Org
from shared.validation.deny_list import DenyListEntry
from shared.validation.facts import Anchor, OrgFacts


def make_facts(
    org: Org,
    anchors: Sequence[Anchor],
    denied: Mapping[str, Sequence[DenyListEntry]],
    *,
    has_active_ca: bool | None = None,
    has_more_cas: bool = False,
) -> OrgFacts:
    """Return the facts of *org*. Arguments: see `OrgFacts`."""
    return OrgFacts(
        org.org_id,
        incarnation=org.incarnation,
        suspended=org.suspended,
        requires_sni=org.requires_sni,
        custom_domains=org.settings.domains,
        listed_domains=org.settings.custom_domains.domains,
        type_certificates=org.settings.type_certificates,
        policy=org.policy,
        anchors=anchors,
        denied=denied,
        has_active_ca=has_active_ca,
        has_more_cas=has_more_cas,
    )
