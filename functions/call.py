"""What a handler receives, and the declaration of endpoints that know the product: its callers, roles and prefix."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from functions.registry import PREFIX, VERIFY_CLIENT, dialect_name
from functions.web.contract import Admitted, Endpoint, Prepare, declare
from functions.web.deadline import check_time
from functions.web.errors import InsecureTransport
from functions.web.message import ID, Reply, Request
from shared.composition import App
from shared.errors import NotAuthenticated, NotFound, WrongValue
from shared.records import Role
from shared.usecases.callers import BearerToken, Credentials, Member, admit, identify
from shared.usecases.context import Context
from shared.usecases.devices.verify import Verifier
from shared.validation.names import is_org_id

OPERATORS: Final = frozenset((Role.OPERATOR,))
VIEWERS: Final = frozenset((Role.VIEWER, Role.OPERATOR))
BROKERS: Final = frozenset((Role.BROKER,))
EDGES: Final = frozenset((Role.EDGE,))


class Call(msgspec.Struct, frozen=True):
    """A request to a handler, with the App that the handler works with."""

    request: Request
    app: App

    @property
    def context(self) -> Context:
        return self.app.context

    @property
    def verifier(self) -> Verifier:
        """The verifier of verdicts, which raises Late at the time limit of this request's verdict."""
        return replace(
            self.app.verifier,
            dialect=dialect_name(self.request.path),
            check_time=partial(check_time, self.request.arrived + self.app.verdict_seconds),
        )

    @property
    def id(self) -> str:
        """The `{id}` in the path. Raises: NotFound, if no id has that form."""
        value = self.request.params["id"]
        if not ID.fullmatch(value):
            raise NotFound(what="thing of that id")
        return value

    @property
    def credentials(self) -> Credentials:
        """The API key and its token. Raises: NotAuthenticated."""
        return credentials_of(self.request)

    @property
    def authorization(self) -> Credentials | BearerToken:
        """The API key and its token, or a token of the OIDC issuer. Raises: NotAuthenticated."""
        return _authorization(self.request)

    @property
    def private_credentials(self) -> Credentials:
        """The API key and its token, for a reply about what edges serve and which sessions end.

        Raises: InsecureTransport, NotAuthenticated.
        """
        if not self.request.is_private:
            raise InsecureTransport
        return self.credentials

    @property
    def exporting_credentials(self) -> Credentials:
        """The API key and its token, for a reply that holds a private key.

        The request came over TLS; or, with TRUST_EDGE_PLAIN=loopback, from a program on this machine, through no proxy.

        Raises: InsecureTransport, NotAuthenticated.
        """
        is_local = self.app.settings.plain_edge and self.request.is_direct
        if self.request.scheme != "https" and not is_local:
            raise InsecureTransport
        return self.credentials


class MemberCall(Call, frozen=True):
    """A call of a member of an organization. The caller and the organization were read for this request."""

    member: Member


def credentials_of(request: Request) -> Credentials:
    """Return the API key and its token. Raises: NotAuthenticated."""
    pair = request.basic_credentials
    if pair is None:
        raise NotAuthenticated
    return Credentials(*pair)


def _authorization(request: Request) -> Credentials | BearerToken:
    token = request.bearer_token
    return credentials_of(request) if token is None else BearerToken(token)


def owner_of(request: Request, get_app: Callable[[], App]) -> str:
    """Return the organization that *request* seems to come from, before anything is verified; "" if unknown.

    Without a known organization, callers share one place in the line: a stranger is refused soon.
    """
    token = request.bearer_token
    if token is None:
        pair = request.basic_credentials
        return (Credentials(*pair).org_id if pair else None) or ""
    tokens = get_app().tokens
    claimed = tokens.claimed_org(token) if tokens else None
    return claimed if claimed and is_org_id(claimed) else ""


def prepare_call(request: Request, get_app: Callable[[], App], roles: frozenset[str]) -> Admitted:
    """Prepare the call of a handler that identifies the caller itself, in the same read as the rest."""
    app = get_app()
    return lambda complete: Call(complete, app)


def _admit_member(request: Request, get_app: Callable[[], App], roles: frozenset[str]) -> Admitted:
    """Admit a member of an organization, before the body of the request is read.

    Raises: NotAuthenticated, Forbidden, OrgSuspended, StoreUnavailable, IssuerUnavailable.
    """
    app = get_app()
    member = admit(app.context, app.tokens, _authorization(request), {Role(role) for role in roles})
    return lambda complete: MemberCall(complete, app, member)


def _admit_without_dry_run(request: Request, get_app: Callable[[], App], roles: frozenset[str]) -> Admitted:
    """Admit a member to a change that has no dry run. A dry run that is ignored would be the change.

    Raises: WrongValue, and what `_admit_member` raises.
    """
    admitted = _admit_member(request, get_app, roles)
    if request.flag("dryrun"):
        raise WrongValue(field="dryrun", found="This call has no dry run, and nothing was changed")
    return admitted


def _identify_first(request: Request, get_app: Callable[[], App], roles: frozenset[str]) -> Admitted:
    """Verify the caller's key before a body is read. The handler reads the key again, in the same read as the rest.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable, IssuerUnavailable.
    """
    app = get_app()
    identify(app.context, app.tokens, _authorization(request), {Role(role) for role in roles})
    return lambda complete: Call(complete, app)


MemberHandler = TypeVar("MemberHandler", bound=Callable[[MemberCall], Reply])
CallHandler = TypeVar("CallHandler", bound=Callable[[Call], Reply])


def endpoint(
    method: str, path: str, *, alias: bool = False, operation_id: str | None = None, **contract: Any
) -> Callable[[MemberHandler], MemberHandler]:
    """Declare a handler for members of an organization with one of the *roles*.

    A call for operators alone is a change, and refuses `dryrun=true` unless its *query* has the parameter.

    Args:
        alias: the endpoint is also reachable by POST at its function's own name, with and without PREFIX.
        operation_id: the name in the OpenAPI document; the handler's name if absent.
        contract: the other fields of `Endpoint`.
    """

    has_no_dry_run = contract["roles"] == OPERATORS and "dryrun" not in contract.get("query", {})
    prepare = _admit_without_dry_run if has_no_dry_run else _admit_member

    def register(handler: MemberHandler) -> MemberHandler:
        _declare(handler, prepare, method, path, alias, operation_id, contract)
        return handler

    return register


def open_endpoint(
    method: str, path: str, *, alias: bool = False, operation_id: str | None = None, **contract: Any
) -> Callable[[CallHandler], CallHandler]:
    """Declare a handler that identifies the caller itself, or needs none. Arguments: see `endpoint`.

    A body is read only once the caller's key is verified, except for verifyClient, which answers after one read.
    """
    prepare = prepare_call
    if contract.get("body") is not None and contract["function"] != VERIFY_CLIENT:
        prepare = _identify_first

    def register(handler: CallHandler) -> CallHandler:
        _declare(handler, prepare, method, path, alias, operation_id, contract)
        return handler

    return register


def _declare(
    handler: Callable[[Any], Reply],
    prepare: Prepare,
    method: str,
    path: str,
    alias: bool,
    operation_id: str | None,
    contract: dict[str, Any],
) -> None:
    new_endpoint = Endpoint(handler=handler, prepare=prepare, owner=owner_of, **contract)
    name = operation_id or handler.__name__
    addresses: list[tuple[str, str, str | None]] = [(method, path, name)]
    if alias:
        addresses += with_and_without_prefix("POST", f"/{new_endpoint.function}", f"{name}_alias")
    declare(new_endpoint, addresses)


def with_and_without_prefix(method: str, path: str, operation_id: str) -> list[tuple[str, str, str | None]]:
    """Return the addresses of a path below PREFIX and without PREFIX. The API description has the first address."""
    return [(method, PREFIX + path, operation_id), (method, path, None)]
