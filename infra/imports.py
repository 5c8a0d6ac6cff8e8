"""Which of the project's modules a deployed function can import, found by reading the imports in the sources.

A package holds these modules and no others, and a function has the right to open private keys exactly if these
modules include one that opens keys (infra/table.py).
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
OWN: Final = ("functions", "shared")
HOSTS: Final = "functions.hosts."
NOT_ON_LAMBDA: Final = frozenset(("google", "grpc", "flask", "functions_framework", "starlette", "uvicorn"))


class NoSuchModule(Exception):
    """A module that the registry names, and that does not exist."""


class Imports(NamedTuple):
    """What a module imports: modules of this project, and top-level packages of others."""

    own: frozenset[str]
    outside: frozenset[str]


def reachable(start: frozenset[str]) -> frozenset[str]:
    """Return the modules of this project that *start* can import on Lambda, with *start* itself.

    A module that cannot be loaded on Lambda (another cloud's adapter) is not followed: `shared.composition` imports
    such a module only if a setting chooses it.

    Raises: NoSuchModule.
    """
    pending, modules = set(start), set[str]()
    while pending:
        name = pending.pop()
        if name in modules:
            continue
        if source_of(name) is None:
            raise NoSuchModule(name)
        if name not in start and not NOT_ON_LAMBDA.isdisjoint(imports_of(name).outside):
            continue
        modules.add(name)
        package = {name.rpartition(".")[0]} - {""}
        pending |= package | imports_of(name).own
    return frozenset(modules)


@cache
def imports_of(name: str) -> Imports:
    """Return what the module *name* imports, at its top or in a function, but not for type checkers alone.

    A host imports in its functions what one deployed function needs. The registry names these modules for that
    function, so only the imports at the top of a host count.
    """
    names: set[str] = set()
    path = source_of(name)
    source = path.read_text(encoding="utf-8") if path else ""
    for node in _statements(ast.parse(source), with_functions=not name.startswith(HOSTS)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    own = {module for module in names if module.partition(".")[0] in OWN and source_of(module)}
    outside = {module.partition(".")[0] for module in names} - set(OWN) - sys.stdlib_module_names
    return Imports(frozenset(own), frozenset(outside))


def _statements(node: ast.AST, *, with_functions: bool) -> Iterator[ast.AST]:
    """Return all nodes below *node* that run, or that run at import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not with_functions:
            continue
        yield child
        yield from _statements(child, with_functions=with_functions)


def source_of(name: str) -> Path | None:
    """Return the source file of a module; None if *name* is no module of this project."""
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
