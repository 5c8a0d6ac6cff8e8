"""What `functions.admin check` finds by the settings of an installation."""

from collections.abc import Iterator

from shared.config import Settings, SQLite
from shared.records import ApiKey, Role
from shared.usecases.context import Context
from shared.usecases.jobs.check import Check, Finding, check_topics
from shared.usecases.organization import iterate_organizations
from shared.usecases.orgs.api_keys import list_keys


def checks_of(settings: Settings) -> tuple[Check, ...]:
    """Return the checks of an installation with *settings*."""

    def check_plain_edge(context: Context) -> Iterator[Finding]:
        is_local = isinstance(settings.store, SQLite) and not settings.behind_tls
        if is_local and not settings.plain_edge and any(map(_is_for_edge, _every_key(context))):
            yield Finding(
                "edge_plain",
                "There is a key for a TLS edge, and private keys are exported over TLS only.",
                "For an edge on this machine that asks over http:// without a proxy between, set "
                "TRUST_EDGE_PLAIN=loopback at the functions.",
            )

    topics = check_topics(settings.topic_prefix, one_org_per_broker=settings.one_org_per_broker)
    return (topics, check_plain_edge)


def _every_key(context: Context) -> Iterator[ApiKey]:
    yield from list_keys(context, None)
    for org in iterate_organizations(context.repository):
        yield from list_keys(context, org.org_id)


def _is_for_edge(key: ApiKey) -> bool:
    return key.role is Role.EDGE and key.revoked_at is None
