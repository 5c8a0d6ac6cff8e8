"""The rules for server certificates (`shared.validation.server_cert`), applied to an organization."""

from collections.abc import Sequence
from datetime import datetime

from shared.records import Org
from shared.usecases.context import Context
from shared.validation.names import messaging_host
from shared.validation.notices import Notice
from shared.validation.server_cert import check_server_certificate, hosts_covered
from shared.x509.certificate import Certificate


def check_for_org(
    context: Context, org: Org, leaf: Certificate, chain: Sequence[Certificate], at: datetime
) -> list[Notice]:
    """Refuse *leaf* if *org* must not present it to devices; return warnings otherwise.

    Raises: Rejected (see `shared.validation.server_cert`).
    """
    return check_server_certificate(
        leaf,
        chain,
        host=messaging_host(org.org_id, context.platform_domain),
        custom_domains=org.settings.domains,
        platform_domain=context.platform_domain,
        org_id=org.org_id,
        at=at,
        weak=context.weak_keys,
    )


def served_hosts(context: Context, org: Org, leaf: Certificate | None) -> list[str]:
    """Return the hosts of *org* that *leaf* covers; an empty list for a request, which has no certificate."""
    return hosts_covered(leaf, org.hosts(context.platform_domain)) if leaf is not None else []
