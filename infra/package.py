"""One zip a function for AWS Lambda, without Docker: python -m infra.package [--python 3.13] [--arch x86_64] [NAME…]

A package holds the function's own modules (what its handler and its routes import, found by reading the imports) and
the pinned wheels they need, built for Lambda's Linux. The same sources give the same bytes, so that a deployment tool
sees what has changed and what has not.

Where a Python of Lambda's version is at hand, byte code lies beside the sources: Lambda cannot write any, and compiling
is most of a cold start otherwise (docs/decisions/0094). Another Python passes it over.
"""

import ast
import fnmatch
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import click
from packaging.markers import Marker

from functions.routes import ROUTES
from infra.table import BY_NAME, FUNCTIONS, Function

ROOT: Final = Path(__file__).resolve().parent.parent
CACHE: Final = ROOT / ".build"  # unpacked wheels, by what is in them
OWN: Final = ("functions", "shared")

IN_RUNTIME: Final = frozenset(("boto3", "botocore"))  # Lambda's Python brings them
NOT_ON_LAMBDA: Final = frozenset(("google", "grpc", "flask", "functions_framework", "uvicorn"))
DISTRIBUTION: Final = {"OpenSSL": "pyopenssl", "python_multipart": "python-multipart", "jwt": "pyjwt"}
LEFT_OUT: Final = frozenset(("pycparser",))  # cffi needs it to build, not to run
DROP: Final = (
    "*.pyc",
    "*/__pycache__/*",
    "*.pyi",
    "bin/*",
    "multipart/*",  # python-multipart under its old name
    "cffi/*",  # at run time only its _cffi_backend is loaded
    "cffi-*/entry_points.txt",
    "*.dist-info/RECORD",  # would tell of the files left out here
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
)
_FILES: Final = {"functions.hosts.static": ("console",)}  # what a module reads beside it, at the top of the checkout
_LINUX: Final = {  # Lambda's Python 3.12 and later stand on glibc 2.34, earlier ones on 2.26
    True: ("manylinux_2_34", "manylinux_2_28", "manylinux2014", "manylinux_2_17"),
    False: ("manylinux2014", "manylinux_2_17"),
}
_MACHINE: Final = {"x86_64": "x86_64", "arm64": "aarch64"}


class CannotPackage(Exception):
    """Says what is missing."""


# ----------------------------------------------------------------------------------------- the project's own modules


def modules_of(function: Function) -> frozenset[str]:
    """The project's modules that *function* can import on Lambda.

    Starts at its handler and at the modules that the routes table names for it, for these are loaded by name. A module
    that cannot be loaded on Lambda (another cloud's adapter) is not followed: `composition` imports it only where a
    setting chooses it.
    """
    start = {_module(function.lambda_handler)} | {_handler(route.handler) for route in function.routes}
    todo, found = set(start), set[str]()
    while todo:
        name = todo.pop()
        if name in found:
            continue
        if _path(name) is None:
            raise CannotPackage(f"{function.name} needs {name}, and there is no such module.")
        if name not in start and not NOT_ON_LAMBDA.isdisjoint(_imports(name).outside):
            continue
        found.add(name)
        parents = {name.rpartition(".")[0]} - {""}
        todo |= parents | _imports(name).own | (_LOADED_BY_NAME.get(name) or frozenset())
    return frozenset(found)


def _module(lambda_handler: str) -> str:
    return lambda_handler.rpartition(".")[0].replace("/", ".")


def _handler(route_handler: str) -> str:
    return "functions." + route_handler.partition(":")[0]


# The OpenAPI document is made from the contracts of all handlers.
_LOADED_BY_NAME: Final = {"functions.openapi": frozenset(_handler(route.handler) for route in ROUTES)}


class _Imports:
    def __init__(self, own: frozenset[str], outside: frozenset[str]) -> None:
        self.own = own
        self.outside = outside


@cache
def _imports(name: str) -> _Imports:
    """What the module *name* imports: at its top or in a function, but not only for type checkers."""
    names: set[str] = set()
    path = _path(name)
    source = path.read_text(encoding="utf-8") if path else ""
    for node in _run(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    own = {one for one in names if one.partition(".")[0] in OWN and _path(one)}
    outside = {one.partition(".")[0] for one in names} - set(OWN) - sys.stdlib_module_names
    return _Imports(frozenset(own), frozenset(outside))


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below *node* that can run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _run(child)


def _path(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _files(name: str) -> Iterator[Path]:
    for folder in _FILES.get(name, ()):
        yield from (path for path in (ROOT / folder).rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------------- pinned wheels


def wheels_of(modules: Iterable[str]) -> frozenset[str]:
    """The distributions that *modules* import, with what these need in turn; none that Lambda's runtime brings."""
    direct = {outside for name in modules for outside in _imports(name).outside} - IN_RUNTIME
    pins = _pins()
    todo, found = {DISTRIBUTION.get(name, name.lower()) for name in direct}, set[str]()
    while todo:
        name = todo.pop()
        if name not in pins:
            raise CannotPackage(f"{name} is imported, and requirements.txt does not pin it.")
        found.add(name)
        todo |= {other for other, pin in pins.items() if name in pin.needed_by} - found - LEFT_OUT
    return frozenset(found)


class _Pin:
    """An entry of requirements.txt."""

    def __init__(self, text: str) -> None:
        requirement, _, via = text.partition("# via")
        line, *hashes = [part.strip(" \\\n") for part in requirement.split("--hash=")]
        self.exact, _, marker = (part.strip() for part in line.partition(";"))
        self.name = re.split(r"[=\[]", self.exact, maxsplit=1)[0]  # without its extras
        self.marker = Marker(marker) if marker else None
        self.hashes = hashes
        self.needed_by = frozenset(re.findall(r"[a-z0-9][a-z0-9._-]*", via)) - {"requirements.in"}

    def line(self) -> str:
        return " \\\n    ".join([self.exact, *(f"--hash={one}" for one in self.hashes)])

    def stands(self, python: str, machine: str) -> bool:
        """Whether its marker holds on Lambda."""
        there = {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_machine": machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
        }
        return self.marker is None or self.marker.evaluate(there)


def _pins() -> Mapping[str, _Pin]:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.M), flags=re.M)
    return {pin.name: pin for pin in map(_Pin, filter(str.strip, entries))}


def _unpacked(wheels: frozenset[str], python: str, arch: str) -> Path:
    """A folder with *wheels* for that Python and machine, fetched once."""
    machine = _MACHINE[arch]
    pins = _pins()
    wanted = [pins[name].line() for name in sorted(wheels) if pins[name].stands(python, machine)]
    key = hashlib.sha256("\n".join([python, machine, *wanted]).encode()).hexdigest()[:16]
    target = CACHE / f"wheels-{key}"
    if target.exists():
        return target
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text("\n".join(wanted), encoding="utf-8")
        modern = tuple(map(int, python.split("."))) >= (3, 12)
        platforms = [f"--platform={linux}_{machine}" for linux in _LINUX[modern]]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp", *platforms]
        command += [f"--python-version={python}", f"--target={folder}/wheels", f"--requirement={requirements}"]
        subprocess.run(command, check=True)  # noqa: S603 - its own arguments
        try:
            os.rename(f"{folder}/wheels", target)
        except OSError:  # another build was first
            if not target.exists():
                raise
    return target


# ------------------------------------------------------------------------------------------------------- packages


def build(function: Function, folder: Path, *, python: str, arch: str) -> Path:
    """Write *function*'s package into *folder*. Raises: CannotPackage."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{function.name}.zip"
    modules = modules_of(function)
    paths = [path for name in modules if (path := _path(name))] + [file for name in modules for file in _files(name)]
    own = {path.relative_to(ROOT).as_posix(): path for path in paths}
    if wheels := wheels_of(modules):
        shutil.copyfile(_zipped(_unpacked(wheels, python, arch), python), target)
    with zipfile.ZipFile(target, "a" if wheels else "w") as archive, _with_byte_code(own, python) as whole:
        _add(archive, whole)
    return target


def _zipped(unpacked: Path, python: str) -> Path:
    """The wheels' part of a package: the same for most functions, and most of the work."""
    target = unpacked.with_suffix(".compiled.zip" if interpreter(python) else ".zip")
    if not target.exists():
        files = {path.relative_to(unpacked).as_posix(): path for path in unpacked.rglob("*") if path.is_file()}
        kept = {name: path for name, path in files.items() if not any(fnmatch.fnmatch(name, one) for one in DROP)}
        with (
            tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as file,
            zipfile.ZipFile(file, "w") as archive,
            _with_byte_code(kept, python) as whole,
        ):
            _add(archive, whole)
        os.replace(file.name, target)
    return target


@cache
def interpreter(python: str) -> str | None:
    """A Python of that version on this machine, or None."""
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{python}")
    if found is None:
        return None
    says = subprocess.run([found, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True)  # noqa: S603
    return found if says.stdout.decode().strip() == python else None


# Compared by a hash that nobody looks at: what is in a zip has no times, and its sources do not change.
_COMPILE: Final = """
import json, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for source, target, shown in json.load(sys.stdin):
    py_compile.compile(source, target, shown, doraise=True, invalidation_mode=mode)
"""


@contextmanager
def _with_byte_code(files: Mapping[str, Path], python: str) -> Iterator[Mapping[str, Path]]:
    """*files*, and the byte code of those that are Python, where it can be made. Gone afterwards."""
    found = interpreter(python)
    if found is None:
        yield files
        return
    with tempfile.TemporaryDirectory() as folder:
        compiled, jobs = {}, []
        for number, (name, path) in enumerate(sorted(files.items())):
            if name.endswith(".py"):
                parent, _, file = name.rpartition("/")
                cached = f"{parent}/__pycache__/{file[:-3]}.cpython-{python.replace('.', '')}.pyc".lstrip("/")
                compiled[cached] = Path(folder, str(number))
                jobs.append((str(path), str(compiled[cached]), name))
        done = subprocess.run([found, "-I", "-c", _COMPILE], input=json.dumps(jobs).encode(), capture_output=True)  # noqa: S603
        if done.returncode:
            raise CannotPackage(f"{found} cannot compile the sources: {done.stderr.decode()[-1000:]}")
        yield {**files, **compiled}


def _add(archive: zipfile.ZipFile, files: Mapping[str, Path]) -> None:
    for name in sorted(files):
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the earliest a zip can say
        entry.create_system = 3  # Unix, on whatever system this runs
        entry.external_attr = 0o644 << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, files[name].read_bytes(), compresslevel=6)


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(BY_NAME)), metavar="[NAME]…")
@click.option("--python", default="3.13", show_default=True, help="Lambda's Python: 3.11 to 3.14.")
@click.option("--arch", type=click.Choice(list(_MACHINE)), default="x86_64", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "dist" / "aws", help="Default: dist/aws.")
@click.option("--clean", is_flag=True, help="Fetch the wheels again.")
def main(names: tuple[str, ...], python: str, arch: str, out: Path, clean: bool) -> None:
    if clean:
        shutil.rmtree(CACHE, ignore_errors=True)
    if interpreter(python) is None:
        click.echo(f"No python{python} here: the packages are made without byte code, and start more slowly.", err=True)
    try:
        for function in [BY_NAME[name] for name in names] or FUNCTIONS:
            path = build(function, out, python=python, arch=arch)
            data = path.read_bytes()
            click.echo(f"{len(data):>10,} bytes  {hashlib.sha256(data).hexdigest()[:12]}  {path}")
    except CannotPackage as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
