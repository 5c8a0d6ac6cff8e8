"""Export and import of an organization's documents, one JSON object a line."""

from collections.abc import Iterator
from typing import Any

from shared.records import PLATFORM, Org, from_body
from shared.refs import org_ref
from shared.usecases.context import Context
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.organization import OrgDocuments
from shared.usecases.orgs.deletion import keys_of, partitions_of
from shared.usecases.orgs.organizations import get_org, restore_org
from shared.usecases.servers.platform_default import PlatformDefault

_Line = dict[str, Any]


def export_lines(context: Context, org_id: str | None) -> Iterator[_Line]:
    """Yield every document of an organization, or of the whole store where *org_id* is None. Private keys stay sealed.

    Raises: NotFound."""
    # Tombstones are exported as well: an id that is created again after an import must have a later incarnation.
    orgs = [get_org(context, org_id)] if org_id else list(OrgDocuments(context.repository).iterate())
    keys = [key for org in orgs for key in keys_of(org.org_id)]
    partitions = [partition for org in orgs for partition in partitions_of(org.org_id)]
    if org_id is None:
        keys.append(PlatformDefault.ref.key)
        partitions.append(f"key/{PLATFORM}")
    yield from context.repository.export_documents(keys, partitions)


def import_lines(context: Context, lines: Iterator[_Line]) -> tuple[int, int]:
    """Create the documents that `export_lines` made. Existing documents stay as they are.

    Returns how many documents were created, and how many existed."""
    created = existing = 0
    for line in lines:
        if _import_document(context, line):
            created += 1
        else:
            existing += 1
    HostFeed(context).sweep()
    return created, existing


def _import_document(context: Context, line: _Line) -> bool:
    """Create the document in *line*. Return False where a document exists already."""
    if line["partition"] == org_ref("").key.partition:
        return restore_org(context, from_body(Org, line["body"]))
    return context.repository.import_document(line)
