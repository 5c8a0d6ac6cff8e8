"""Export and import of organizations, one JSON object a line (`shared.usecases.jobs.export_file`)."""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from shared.ports import KeySealer
from shared.records import PLATFORM, ApiKey, Org, OrgRecord
from shared.usecases.context import Context
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.jobs.export_file import ExportedDocument, read_documents, verify_export, write_export
from shared.usecases.jobs.exported_documents import CheckedDocument, check_document
from shared.usecases.organization import OrgDocuments
from shared.usecases.orgs.deletion import keys_of, partitions_of
from shared.usecases.orgs.organizations import get_org, restore_org
from shared.usecases.servers.platform_default import PlatformDefault


class Imported(msgspec.Struct, frozen=True):
    """What an import did.

    Args:
        written: documents that were created.
        kept: documents that existed already, and stayed as they were.
        keys: API keys that were left out.
        others: documents of other organizations and of the platform that were left out.
    """

    written: int = 0
    kept: int = 0
    keys: int = 0
    others: int = 0


def export_lines(context: Context, sealer: KeySealer, org_id: str | None) -> Iterator[bytes]:
    """Yield the lines of an export of an organization, or of the whole store where *org_id* is None.

    Private keys stay sealed. Raises: NotFound, KeysUnavailable."""
    return write_export(sealer, list_documents(context, org_id))


def list_documents(context: Context, org_id: str | None) -> Iterator[ExportedDocument]:
    """Yield every document of an organization, or of the whole store where *org_id* is None.

    Raises: NotFound."""
    # Tombstones are exported as well: an id that is created again after an import must have a later incarnation.
    orgs = [get_org(context, org_id)] if org_id else list(OrgDocuments(context.repository).iterate())
    keys = [key for org in orgs for key in keys_of(org.org_id)]
    partitions = [partition for org in orgs for partition in partitions_of(org.org_id)]
    if org_id is None:
        keys.append(PlatformDefault.ref.key)
        partitions.append(f"key/{PLATFORM}")
    for document in context.repository.export_documents(keys, partitions):
        yield ExportedDocument(**document)


def import_lines(
    context: Context,
    sealer: KeySealer,
    read: Callable[[], Iterable[bytes]],
    *,
    org_id: str | None = None,
    with_keys: bool = False,
    is_signed: bool = True,
) -> Imported:
    """Create the documents of an export. Existing documents stay as they are.

    The whole file is verified, and each document is checked, before the first is written.

    Args:
        read: returns the lines of the export from the first, without line ends; called several times.
        org_id: take the documents of this organization only.
        with_keys: take API keys as well.
        is_signed: whether the file must have the seal of an export. Without, API keys are refused.

    Raises: ExportRefused, KeysUnavailable."""
    if is_signed:
        verify_export(sealer, read())
    for _ in _checked(read()):
        pass
    imported = Imported()
    for is_first_pass in (True, False):  # organizations first: the other documents belong to them
        for checked in _checked(read()):
            if (checked.document.partition == "org") is is_first_pass:
                imported = _take(context, checked, imported, org_id, with_keys and is_signed)
    HostFeed(context).sweep()
    return imported


def _checked(lines: Iterable[bytes]) -> Iterator[CheckedDocument]:
    return (check_document(number, document) for number, document in read_documents(lines))


def _take(
    context: Context, checked: CheckedDocument, before: Imported, org_id: str | None, with_keys: bool
) -> Imported:
    """Create one document where it is wanted. Return *before* with one document more."""
    if org_id is not None and checked.org_id != org_id:
        return msgspec.structs.replace(before, others=before.others + 1)
    if isinstance(checked.record, ApiKey) and not with_keys:
        return msgspec.structs.replace(before, keys=before.keys + 1)
    if _write(context, checked):
        return msgspec.structs.replace(before, written=before.written + 1)
    return msgspec.structs.replace(before, kept=before.kept + 1)


def _write(context: Context, checked: CheckedDocument) -> bool:
    """Create one document. Return False where it exists already, or its organization does not exist here.

    Another organization of the same id is another organization.
    """
    record = checked.record
    if isinstance(record, Org):
        return restore_org(context, record)
    if checked.org_id is not None and isinstance(record, OrgRecord):
        org = OrgDocuments(context.repository).find(checked.org_id)
        if org is None or not org.belongs_to(record.incarnation):
            return False
    return context.repository.import_document(msgspec.to_builtins(checked.document))
