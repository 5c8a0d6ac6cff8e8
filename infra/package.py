"""Make the packages for AWS Lambda, without Docker.

    python -m infra.package [--python 3.13] [--arch x86_64] [NAME…]

A package is a zip of a function's own modules (infra/imports.py) and the pinned wheels that they need, built for
Lambda's Linux. The same sources give the same bytes, so that a deployment tool sees which function has changed.

If a Python of Lambda's version is installed, the package holds byte code beside the sources: Lambda cannot write any,
and compiling would be most of a cold start (docs/decisions/0094). Another Python ignores the byte code.
"""

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
from importlib import metadata
from pathlib import Path
from typing import Final

import click
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.imports import ROOT, imports_of, source_of
from infra.table import BY_NAME, FUNCTIONS, DeployedFunction

LOCK: Final = ROOT / "requirements/all.txt"  # the pins of every wheel that a package may hold
CACHE: Final = ROOT / ".build"  # unpacked wheels, by what is in them

IN_RUNTIME: Final = frozenset(("boto3", "botocore"))  # Lambda's Python brings them
LEFT_OUT: Final = frozenset(("pycparser",))  # cffi needs it to build, not to run
DROP: Final = (
    "*.pyc",
    "*/__pycache__/*",
    "*.pyi",
    "bin/*",
    "multipart/*",  # python-multipart under its old name
    "cffi/*",  # at run time only its _cffi_backend is loaded
    "cffi-*/entry_points.txt",
    "*.dist-info/RECORD",  # lists the files that are left out here
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
)
_DATA: Final = {  # module -> the files and folders that it reads with importlib.resources
    "functions.hosts.static": (ROOT / "console",),
    "functions.api.system": (ROOT / "functions/api/openapi.json",),
}
_LINUX: Final = {  # Lambda's Python 3.12 and later use glibc 2.34, earlier ones 2.26
    True: ("manylinux_2_34", "manylinux_2_28", "manylinux2014", "manylinux_2_17"),
    False: ("manylinux2014", "manylinux_2_17"),
}
_MACHINE: Final = {"x86_64": "x86_64", "arm64": "aarch64"}


class CannotPackage(Exception):
    """A package cannot be made. The text says what is missing."""


# ------------------------------------------------------------------------------------------------- pinned wheels


def wheels_of(modules: Iterable[str], *, python: str = "3.13", machine: str = "x86_64") -> frozenset[str]:
    """Return the distributions that *modules* import, with those that they require in turn.

    Which distribution holds a package, and what a distribution requires, is read from the metadata of the installed
    wheels. Distributions that Lambda's runtime brings are left out.

    Raises: CannotPackage.
    """
    packages = {package for name in modules for package in imports_of(name).outside} - IN_RUNTIME
    pins = _pins(python, machine)
    pending, names = set(map(_distribution, packages)), set[str]()
    while pending:
        name = pending.pop()
        if name not in pins:
            raise CannotPackage(f"{name} is imported, and {LOCK.name} does not pin it.")
        names.add(name)
        pending |= set(_requirements_of(name, pins[name].extras, python, machine)) - names - LEFT_OUT
    return frozenset(names)


def _distribution(package: str) -> str:
    """Return the distribution that holds a top-level package. Raises: CannotPackage."""
    names = _distributions().get(package)
    if not names:
        raise CannotPackage(f"{package} is imported, and no installed distribution holds it.")
    return canonicalize_name(names[0])


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _requirements_of(name: str, extras: Iterable[str], python: str, machine: str) -> Iterator[str]:
    """Return the distributions that *name*, installed with *extras*, requires on Lambda."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate(_on_lambda(python, machine, extra)) for extra in ("", *extras)):
            yield canonicalize_name(requirement.name)


def _on_lambda(python: str, machine: str, extra: str = "") -> dict[str, str]:
    """Return the environment of markers (PEP 508) on Lambda."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "extra": extra,
    }


class _Pin:
    """An entry of the lock file."""

    def __init__(self, text: str) -> None:
        line, *hashes = [part.strip(" \\\n") for part in text.partition("# via")[0].split("--hash=")]
        requirement = Requirement(line)
        self.exact = line.partition(";")[0].strip()
        self.name = canonicalize_name(requirement.name)
        self.extras = requirement.extras
        self.marker = requirement.marker
        self.hashes = hashes

    def line(self) -> str:
        return " \\\n    ".join([self.exact, *(f"--hash={digest}" for digest in self.hashes)])

    def applies(self, python: str, machine: str) -> bool:
        """Whether the entry's marker holds on Lambda."""
        return self.marker is None or self.marker.evaluate(_on_lambda(python, machine))


def _pins(python: str, machine: str) -> Mapping[str, _Pin]:
    """Return the entries of the lock file that apply on Lambda."""
    text = LOCK.read_text(encoding="utf-8")
    entries = re.split(r"^(?=[A-Za-z0-9])", re.sub(r"^ *#.*\n", "", text, flags=re.M), flags=re.M)
    return {pin.name: pin for pin in map(_Pin, filter(str.strip, entries)) if pin.applies(python, machine)}


def _unpack(wheels: frozenset[str], python: str, arch: str) -> Path:
    """Fetch *wheels* for a Python and a machine, unless they were fetched before, and return their folder."""
    machine = _MACHINE[arch]
    pins = _pins(python, machine)
    lines = [pins[name].line() for name in sorted(wheels)]
    key = hashlib.sha256("\n".join([python, machine, *lines]).encode()).hexdigest()[:16]
    target = CACHE / f"wheels-{key}"
    if target.exists():
        return target
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text("\n".join(lines), encoding="utf-8")
        modern = tuple(map(int, python.split("."))) >= (3, 12)
        platforms = [f"--platform={linux}_{machine}" for linux in _LINUX[modern]]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp", *platforms]
        command += [f"--python-version={python}", f"--target={folder}/wheels", f"--requirement={requirements}"]
        subprocess.run(command, check=True)  # noqa: S603 - its own arguments
        try:
            os.rename(f"{folder}/wheels", target)
        except OSError:  # another build made the folder first
            if not target.exists():
                raise
    return target


# ------------------------------------------------------------------------------------------------------- packages


def _data_files(name: str) -> Iterator[Path]:
    """Return the files that a module reads with importlib.resources."""
    for path in _DATA.get(name, ()):
        files = path.rglob("*") if path.is_dir() else [path]
        yield from (file for file in files if file.is_file() and file.parent.name != "__pycache__")


def build(function: DeployedFunction, folder: Path, *, python: str, arch: str) -> Path:
    """Write *function*'s package into *folder* and return its path. Raises: CannotPackage."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{function.name}.zip"
    modules = function.modules
    sources = [path for name in modules if (path := source_of(name))]
    data = [file for name in modules for file in _data_files(name)]
    own = {path.relative_to(ROOT).as_posix(): path for path in (*sources, *data)}
    wheels = wheels_of(modules, python=python, machine=_MACHINE[arch])
    if wheels:
        shutil.copyfile(_zip_wheels(_unpack(wheels, python, arch), python), target)
    with zipfile.ZipFile(target, "a" if wheels else "w") as archive, _with_byte_code(own, python) as files:
        _add(archive, files)
    return target


def _zip_wheels(unpacked: Path, python: str) -> Path:
    """Make a zip of the wheels, unless it exists. Most functions share a zip, because making it takes long."""
    target = unpacked.with_suffix(".compiled.zip" if interpreter(python) else ".zip")
    if not target.exists():
        files = {path.relative_to(unpacked).as_posix(): path for path in unpacked.rglob("*") if path.is_file()}
        needed = {name: path for name, path in files.items() if not any(fnmatch.fnmatch(name, drop) for drop in DROP)}
        with (
            tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as file,
            zipfile.ZipFile(file, "w") as archive,
            _with_byte_code(needed, python) as packed,
        ):
            _add(archive, packed)
        os.replace(file.name, target)
    return target


@cache
def interpreter(python: str) -> str | None:
    """Return a Python of that version on this machine; None if there is none."""
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    program = shutil.which(f"python{python}")
    if program is None:
        return None
    version = subprocess.run([program, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True)  # noqa: S603
    return program if version.stdout.decode().strip() == python else None


# Validated by a hash that Python does not check: files in a zip have no times, and their sources do not change.
_COMPILE: Final = """
import json, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for source, target, name in json.load(sys.stdin):
    py_compile.compile(source, target, name, doraise=True, invalidation_mode=mode)
"""


@contextmanager
def _with_byte_code(files: Mapping[str, Path], python: str) -> Iterator[Mapping[str, Path]]:
    """Yield *files* with the byte code of the Python files, if it can be made; the byte code is temporary."""
    program = interpreter(python)
    if program is None:
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
        done = subprocess.run([program, "-I", "-c", _COMPILE], input=json.dumps(jobs).encode(), capture_output=True)  # noqa: S603
        if done.returncode:
            raise CannotPackage(f"{program} cannot compile the sources: {done.stderr.decode()[-1000:]}")
        yield {**files, **compiled}


def _add(archive: zipfile.ZipFile, files: Mapping[str, Path]) -> None:
    for name in sorted(files):
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the earliest date of the zip format
        entry.create_system = 3  # Unix, on every system
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
    """Build the packages of *names*, or of all functions."""
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
