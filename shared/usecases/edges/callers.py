"""Who calls as a TLS edge."""

from typing import Any

from shared.records import Role
from shared.refs import Ref
from shared.repository import Batch
from shared.usecases.callers import Caller, Credentials, authenticate
from shared.usecases.context import Context


def authenticate_edge(context: Context, credentials: Credentials, *refs: Ref[Any]) -> tuple[Caller, Batch]:
    """Return the edge that *credentials* prove, and the documents at *refs*, from one batched read.

    The edge key of a suspended organization, or of one that is being deleted, is accepted: that edge must learn that
    its hosts are removed.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable.
    """
    documents = context.repository.read_batch([*credentials.refs, *refs])
    caller = authenticate(credentials, documents)
    caller.must_be((Role.EDGE,))
    return caller, documents
