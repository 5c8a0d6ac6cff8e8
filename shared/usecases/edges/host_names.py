"""Which hosts an org has, and which of them a server certificate covers."""

from collections.abc import Sequence

from shared.records import Settings
from shared.validation.names import messaging_host
from shared.validation.server_cert import hosts_covered
from shared.x509.certificate import Certificate


def hosts_of(org_id: str, platform_domain: str, settings: Settings) -> list[str]:
    """The platform's host of the org first, then one for each custom domain in force."""
    return [messaging_host(org_id, domain) for domain in (platform_domain, *settings.domains)]


def covered_hosts(leaf: Certificate, hosts: Sequence[str]) -> list[str]:
    """Those of *hosts* that *leaf* names."""
    return list(hosts_covered(leaf, hosts))
