"""Who calls as a TLS edge."""

import re
from typing import Any, Final

from shared.batch import Batch
from shared.errors import WrongValue
from shared.records import Role
from shared.refs import Ref
from shared.usecases.callers import Caller, Credentials, admit_caller
from shared.usecases.context import Context

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"


def note_contact(context: Context, caller: Caller, name: str) -> None:
    """Note that an edge asked for what changed.

    Args:
        name: what the edge calls itself; empty where it gives no name.

    Raises: WrongValue, where *name* cannot be the name of an edge.
    """
    if name and not re.fullmatch(_NAME, name):
        raise WrongValue(field="edge", found="edge takes a name of at most 64 characters of A-Z a-z 0-9 . _ : -")
    context.heartbeats.note(caller.org_id, caller.who, name, incarnation=caller.incarnation)


def authenticate_edge(context: Context, credentials: Credentials, *refs: Ref[Any]) -> tuple[Caller, Batch]:
    """Return the edge that *credentials* prove, and the documents at *refs*, from one batched read.

    The edge key of a suspended organization, or of one that is being deleted, is accepted: that edge must learn that
    its hosts are removed.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable.
    """
    documents = context.repository.read_batch([*credentials.refs, *refs])
    return admit_caller(context, credentials, documents, (Role.EDGE,)), documents
