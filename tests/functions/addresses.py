"""The described routes of the API, and how tests address them."""

from typing import Final

from functions.registry import every_route
from functions.web.contract import Route

ROUTES: Final = [route for route in every_route() if route.operation_id is not None]


def handler_of(route: Route) -> str:
    """Return the operation id; the same for an endpoint and its alias."""
    return (route.operation_id or "").removesuffix("_alias")


def client_path(route: Route, **parameters: str) -> str:
    """Return the route's path for `tests.support.harness.Client`, with values for its parameters."""
    path = f"/{route.path}"
    for name, value in parameters.items():
        path = path.replace(f"{{{name}}}", value)
    return path
