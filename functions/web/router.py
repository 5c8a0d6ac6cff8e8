"""From a method and a path to the endpoint that answers."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final
from urllib.parse import unquote

from functions.web.contract import Endpoint, Refuse, Route
from functions.web.errors import MethodNotAllowed
from shared.errors import NotFound

_SEGMENT: Final = r"\\\{(\w+)\\\}"  # `{id}`, escaped
_REST: Final = r"\\\{\\\*(\w+)\\\}"  # `{*rest}`, escaped


def parameters_of(path: str) -> tuple[str, ...]:
    """Return the names of the parameters in a template."""
    return tuple(re.findall(r"\{\*?(\w+)\}", path))


class Router:
    """Finds the endpoint of a request among *routes*.

    Args:
        refuse: raises the refusal of an address that is not among *routes*; NotFound if absent.
    """

    def __init__(self, routes: Iterable[Route], *, refuse: Refuse | None = None) -> None:
        self._literal: dict[str, dict[str, Endpoint]] = {}
        self._templates: list[tuple[str, str, Endpoint]] = []
        self._refuse = refuse
        for route in routes:
            if "{" in route.path:
                self._templates.append((route.path, route.method, route.endpoint))
            else:
                self._literal.setdefault(route.path, {})[route.method] = route.endpoint

    def find(self, method: str, path: str) -> tuple[Endpoint, Mapping[str, str]]:
        """Return the endpoint and the parameters in the path, decoded.

        Args:
            path: as the client sent it, percent-encoded: an encoded slash does not split a segment, and `..` is a name
                like any other.

        Raises: NotFound, MethodNotAllowed.
        """
        endpoints, params = self._at(path.removesuffix("/") if len(path) > 1 else path)
        endpoint = endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is not None:
            return endpoint, params
        if endpoints:
            raise MethodNotAllowed(method=method[:16], allowed=", ".join(sorted(endpoints)))
        if self._refuse is not None:
            self._refuse(method, path)
        raise NotFound(what="such address")

    def _at(self, path: str) -> tuple[Mapping[str, Endpoint], Mapping[str, str]]:
        """Return the endpoints at *path* by method, and the parameters in the path.

        A literal path comes before a template (OpenAPI 3.1, "Path Templating Matching").
        """
        if literal := self._literal.get(path):
            return literal, {}
        endpoints: dict[str, Endpoint] = {}
        params: Mapping[str, str] = {}
        for template, method, endpoint in self._templates:
            if match := _pattern(template).fullmatch(path):
                endpoints.setdefault(method, endpoint)
                params = {name: unquote(value) for name, value in match.groupdict().items()}
        return endpoints, params


@cache
def _pattern(path: str) -> re.Pattern[str]:
    segments = re.sub(_SEGMENT, r"(?P<\1>[^/]+)", re.escape(path))
    return re.compile(re.sub(_REST, r"(?P<\1>.*)", segments))
