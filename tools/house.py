"""Measure the layout of the code: python -m tools.house (make house).

Prints a table: what is counted, the limit, the value now. Ends with 1 if a private key can be exported by a
function other than edgeFeed, if an import contract is broken, or if a forbidden word is found. The other rows inform.
"""

import ast
import io
import re
import subprocess
import sys
import tempfile
import tokenize
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
PRODUCT: Final = ("functions", "shared", "edge", "infra")
KEY_EXPORT: Final = "shared.usecases.edges.serve"  # the only module that exports a private key
RIDDLES: Final = frozenset(("one", "found", "wanted", "told"))  # names that do not name their thing
LONG: Final = 500  # lines of a module

# Words that make readers read a sentence twice; CONTRIBUTING.md names better words. `told/` is a stored name.
FORBIDDEN: Final = re.compile(
    r"\b(told(?!/)|stands|whoever|nobody's|believed|speaks)\b"
    r"|\bwhere there (?:is|are) none\b|\bit is none's\b|\bso long only\b",
    re.IGNORECASE,
)


class Row(NamedTuple):
    """A line of the table. *limit* and *value* are text; *is_met* is None where the row only informs."""

    what: str
    limit: str
    value: str
    is_met: bool | None


def tracked(*patterns: str) -> list[Path]:
    """Return the files of the repository that match *patterns*."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted({ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()})


def product_modules() -> list[Path]:
    """Return the Python modules of the product."""
    return tracked(*(f"{folder}/**/*.py" for folder in PRODUCT), *(f"{folder}/*.py" for folder in PRODUCT))


# --------------------------------------------------------------------------------------- files, folders, lines


def entries_of_functions() -> Row:
    """Count the files and folders directly in functions/."""
    entries = {path.relative_to(ROOT / "functions").parts[0] for path in tracked("functions/*", "functions/**/*")}
    return _at_most("files and folders directly in functions/", 12, len(entries))


def modules_per_folder() -> list[Row]:
    """Count the modules of each folder of functions/ and shared/."""
    folders = Counter(path.parent.relative_to(ROOT) for path in tracked("functions/**/*.py", "shared/**/*.py"))
    return [Row(f"modules in {folder}", "", str(number), None) for folder, number in sorted(folders.items())]


def long_modules() -> Row:
    """Count modules of the product with LONG lines or more."""
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in product_modules()}
    names = [path.name for path, size in sizes.items() if size >= LONG]
    return _at_most(f"modules of {LONG} lines or more", 1, len(names), names)


def top_level() -> list[Row]:
    """Count the lines of the README and the tracked files at the top."""
    readme = len((ROOT / "README.md").read_text(encoding="utf-8").splitlines())
    files = [path.name for path in tracked() if path.parent == ROOT]
    return [_at_most("README lines", 150, readme), _at_most("tracked files at the top", 14, len(files))]


# ------------------------------------------------------------------------------------------------------ the code


def callbacks_and_strings() -> list[Row]:
    """Count `alter` closures, `nonlocal` statements, and modules that import modules by a string."""
    alters = nonlocals = 0
    by_string = []
    for path in product_modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            alters += isinstance(node, ast.FunctionDef) and node.name == "alter"
            nonlocals += isinstance(node, ast.Nonlocal)
            if isinstance(node, ast.Attribute) and node.attr == "import_module" and path.parts[-2] != "infra":
                by_string.append(path.name)
    return [
        _at_most("`alter` closures", 0, alters),
        _at_most("`nonlocal` statements", 0, nonlocals),
        _at_most("modules that find a module by a string", 1, len(set(by_string)), by_string),
    ]


def riddles() -> list[Row]:
    """Count local names that do not name their thing, in the product and in everything else."""
    product = set(product_modules())
    names: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    for path in tracked("*.py", "**/*.py"):
        (names if path in product else elsewhere).update(_local_names(path))
    what = "local names " + ", ".join(f"`{name}`" for name in sorted(RIDDLES))
    return [
        _at_most(f"{what} in the product", 40, names.total()),
        Row(f"{what} in tests, demo, benchmarks", "", str(elsewhere.total()), None),
    ]


def _local_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in RIDDLES:
            yield node.id
        elif isinstance(node, ast.arg) and node.arg in RIDDLES:
            yield node.arg


def class_names() -> Row:
    """Count class names that mean two things in the product."""
    places: dict[str, list[str]] = {}
    for path in product_modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.name)
    twice = sorted(name for name, modules in places.items() if len(modules) > 1)
    return _at_most("class names that mean two things", 0, len(twice), twice)


# ------------------------------------------------------------------------------------------------- the two ways


class Way(NamedTuple):
    """What one request does: calls of the store, and frames from the handler to the deepest call."""

    calls: int
    frames: int


def ways() -> dict[str, Way]:
    """Run one request of each kind on an embedded store and return what each does."""
    from tests.support import certs
    from tests.support.harness import make_service

    with tempfile.TemporaryDirectory() as folder:
        service = make_service(Path(folder), metrics="off")
        depths: list[int] = []

        def measure(name: str, key: object, call: Any) -> Any:
            depths.append(_frames(traceback.extract_stack()))
            return call()

        service.store.between = measure

        def count(action: Any) -> Way:
            service.store.calls.clear()
            depths.clear()
            answer = action()
            if answer.status >= 300:
                raise RuntimeError(f"{answer.status}: {answer.text}")
            return Way(service.store.calls.total(), max(depths))

        operator, broker = service.client("operator"), service.client("broker")
        root = certs.ca("Root")
        server = certs.server(service.host(), root)
        path = "/authentication/servercertificates"
        operator.post(path, {"certificate": server.pem, "privateKey": server.key_pem}).ok(201)
        server_id = operator.get(path).ok()["results"][-1]["id"]
        operator.post("/authorization/denylist", {"kind": "identity", "value": "d:thermo:13"}).ok(201)  # a warm feed
        upload = count(lambda: operator.post("/authentication/cacertificates", {"certificate": root.pem}))
        ca_id = operator.get("/authentication/cacertificates").ok()["results"][0]["id"]
        question = {
            "serverName": service.host(),
            "clientId": f"d:{service.org_id}:thermo:42",
            "certificate": certs.leaf("d:thermo:42", root).pem,
        }
        measured = {
            "uploadCA": upload,
            "activate": count(lambda: operator.put(f"{path}/active", {"id": server_id})),
            "allow": count(lambda: broker.post("/authorization/verifyclient", question)),
            "deleteCA": count(lambda: operator.delete(f"/authentication/cacertificates/{ca_id}")),
        }
        service.app.close()
    return measured


def _frames(stack: traceback.StackSummary) -> int:
    """Count the frames of the product from the handler on. The store and its wrapper are not counted."""
    files = [Path(frame.filename).relative_to(ROOT).as_posix() for frame in stack if _is_own(frame.filename)]
    handlers = [
        number for number, name in enumerate(files) if name.startswith(("functions/api/", "functions/dialects/"))
    ]
    return len(files) - handlers[0] if handlers else len(files)


def _is_own(filename: str) -> bool:
    path = Path(filename)
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("functions", "shared")


def store_rows() -> list[Row]:
    """Return the rows of store calls and frames."""
    measured = ways()
    # An upload reads the deny list once more, after its reservation in the index: a denial that this read misses finds
    # the reservation. So no crash of the upload leaves a denied CA without its mark.
    limits = {"uploadCA": 10, "activate": 10, "deleteCA": 14, "allow": 1}
    rows = [_at_most(f"store calls of {name}", limits[name], way.calls) for name, way in measured.items()]
    change = max(way.frames for name, way in measured.items() if name != "allow")
    rows.append(_at_most("frames from handler to store: change", 8, change))
    rows.append(_at_most("frames from handler to store: verdict", 6, measured["allow"].frames))
    return rows


# -------------------------------------------------------------------------------------- what makes `make house` fail


def key_exporters() -> Row:
    """Name the functions whose package can export a private key."""
    from infra.table import FUNCTIONS

    exporters = [function.name for function in FUNCTIONS if KEY_EXPORT in function.modules]
    return Row("functions that can export a private key", "edgeFeed", ", ".join(exporters), exporters == ["edgeFeed"])


def import_contracts() -> Row:
    """Check the contracts of import-linter."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True, check=False
    )
    kept = re.search(r"(\d+) kept, (\d+) broken", done.stdout)
    return Row("import contracts broken", "0", kept[2] if kept else "not measured", done.returncode == 0)


def forbidden_words() -> list[tuple[str, int, str]]:
    """Return (file, line, text) of each forbidden word in a comment, docstring, log line, test name or document."""
    hits = []
    for path in tracked("*.py", "*.md", "*.js", "*.lua", "*.sh", "*.cfg", "*.conf", "Makefile", "*.toml"):
        name = path.relative_to(ROOT).as_posix()
        if name in _EXEMPT or name.startswith("tests/data/"):
            continue
        text = path.read_text(encoding="utf-8")
        for line, words in _prose(path, text):
            hits += [(name, line, match[0]) for match in FORBIDDEN.finditer(words)]
    return hits


_EXEMPT: Final = ("tools/house.py", "CONTRIBUTING.md")  # both list the forbidden words


def _prose(path: Path, text: str) -> Iterable[tuple[int, str]]:
    """Yield (line number, text) of what people read in a file."""
    if path.suffix == ".py":
        yield from _python_prose(text)
    elif path.suffix in (".js", ".lua"):
        mark = "//" if path.suffix == ".js" else "--"
        for number, line in enumerate(text.splitlines(), 1):
            if mark in line or line.lstrip().startswith(("*", "/*")):
                yield number, line.partition(mark)[2] if mark in line else line
    else:
        yield from enumerate(text.splitlines(), 1)


def _python_prose(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                for offset, line in enumerate(docstring.splitlines()):
                    yield node.body[0].lineno + offset, line
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
        if isinstance(node, ast.Call) and _is_log_call(node):
            yield from ((text.lineno, text.value) for text in node.args if _is_text(text))  # type: ignore[attr-defined]


def _is_log_call(node: ast.Call) -> bool:
    function = node.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in ("debug", "info", "warning", "error", "exception")
        and isinstance(function.value, ast.Name)
        and function.value.id in ("log", "logs", "logger")
    )


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


# ------------------------------------------------------------------------------------------------------ the table


def _at_most(what: str, limit: int, value: int, names: Iterable[str] = ()) -> Row:
    listing = ", ".join(names)
    return Row(what, f"≤ {limit}" if limit else "0", f"{value}" + (f" ({listing})" if listing else ""), value <= limit)


def main() -> int:
    """Print the table; return 1 where a row that must hold does not."""
    hits = forbidden_words()
    must = [
        key_exporters(),
        import_contracts(),
        Row("forbidden words", "0", str(len(hits)), not hits),
    ]
    rows = [
        entries_of_functions(),
        *store_rows(),
        *callbacks_and_strings(),
        *riddles(),
        class_names(),
        long_modules(),
        *top_level(),
        *modules_per_folder(),
    ]
    for row in [*must, *rows]:
        mark = {True: "yes", False: "NO", None: ""}[row.is_met]
        sys.stdout.write(f"{row.what:<62} {row.limit:>9}  {row.value:<28} {mark}\n")
    for name, line, word in hits[:40]:
        sys.stdout.write(f"{name}:{line}: {word}\n")
    return 0 if all(row.is_met for row in must) else 1


if __name__ == "__main__":
    sys.exit(main())
