"""What must be known to judge a client: of the caller's key, of the organization, and of its CAs."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec

from shared.validation.deny_list import DenyListEntry
from shared.validation.policy import Policy
from shared.x509.certificate import Certificate


class Scope(msgspec.Struct, frozen=True):
    """Which orgs the caller's key may ask about.

    An id may be deleted and created again, so a key is bound to the incarnation of each of its orgs.

    Args:
        org_id: None for a platform key.
        orgs: of a platform key: the incarnation of each of its orgs, by id; empty: every org.
        incarnation: of *org_id*.
    """

    org_id: str | None
    orgs: Mapping[str, str] = msgspec.field(default_factory=dict)
    no_sni: bool = False
    incarnation: str = ""

    def may_ask_about(self, org_id: str, incarnation: str | None) -> bool:
        """Whether the key may ask about *org_id* of that *incarnation*.

        None: it is not known whether the org exists. The id alone then decides."""
        if self.org_id is None and not self.orgs:
            return True
        orgs = self.orgs if self.org_id is None else {self.org_id: self.incarnation}
        return org_id in orgs and incarnation in (None, orgs[org_id])


class Anchor(msgspec.Struct, frozen=True):
    """A registered CA."""

    id: str
    certificate: Certificate
    active: bool
    denied_at: datetime | None = None
    deactivated_at: datetime | None = None


class OrgFacts(msgspec.Struct, frozen=True):
    """What must be known of an org to judge one of its clients.

    Args:
        denied: the entries found, by the look-up ids that `deny_list.questions` named.
        has_active_ca: None where only the CAs that matter to this client were read.
        listed_domains: the custom domains that the organization listed, in force or not.
        has_more_cas: whether CAs that matter to this client were left out, because there is too much to read.
    """

    org_id: str
    suspended: bool
    requires_sni: bool
    custom_domains: Collection[str]
    type_certificates: bool
    policy: Policy
    anchors: Sequence[Anchor] = ()
    denied: Mapping[str, Sequence[DenyListEntry]] = msgspec.field(default_factory=dict)
    has_active_ca: bool | None = None
    has_more_cas: bool = False
    listed_domains: Collection[str] = ()
    incarnation: str = ""
