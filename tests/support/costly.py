"""Families of certificates that cost much to judge.

Every member is well formed, and each path of it is good but for the date of the device.

A member is what an organization registers, and what its device sends. Families differ in the shape of the paths, in the
names and name constraints that are compared with each other, in the keys, and in what is denied.
"""

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import product
from typing import Final

from cryptography import x509

from tests.support import certs
from tests.support.certs import DAY, NOON, Issued

DEVICE: Final = "d:thermo:42"


@dataclass(frozen=True)
class Costly:
    """What an organization registers, and what its device sends: a leaf, and CAs in the order of their levels."""

    registered: tuple[Issued, ...]
    leaf: Issued
    sent: tuple[Issued, ...]

    @property
    def chain(self) -> bytes:
        """What follows the leaf, as DER."""
        return b"".join(ca.der for ca in self.sent)


# ---------------------------------------------------------------------------------------- names, and limits on names
# For each kind: name *n* of a certificate, and subtree *n*, which is compared with each name and includes none.

_Make = Callable[[int], x509.GeneralName]


def _directory(*units: str) -> x509.DirectoryName:
    return x509.DirectoryName(
        x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units])
    )


def _network(number: int) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_network((0x0A000000 + (number << 8), 24)))


KINDS: Final[Mapping[str, tuple[_Make, _Make]]] = {
    "dns": (lambda n: x509.DNSName(f"h{n}.example.org"), lambda n: x509.DNSName(f"x{n}.example.org")),
    "mail": (lambda n: x509.RFC822Name(f"m{n}@h.example.org"), lambda n: x509.RFC822Name(f"x{n}.example.org")),
    "uri": (
        lambda n: x509.UniformResourceIdentifier(f"coap://h{n}.example.org/"),
        lambda n: x509.UniformResourceIdentifier(f"x{n}.example.org"),
    ),
    "long uri": (
        lambda n: x509.UniformResourceIdentifier(f"coap://h{n}.example.org/{'x' * 280}"),
        lambda n: x509.UniformResourceIdentifier(f"x{n}.example.org"),
    ),
    "address": (lambda n: x509.IPAddress(ipaddress.ip_address(0xC0000200 + n)), _network),
    "directory": (lambda n: _directory("unit", f"h{n}"), lambda n: _directory("unit", f"x{n}")),
}


def subtrees(kind: str, count: int) -> list[tuple[x509.ExtensionType, bool]]:
    """Return name constraints that exclude *count* subtrees, as an extension of `certs.ca`."""
    excluded = [KINDS[kind][1](number) for number in range(count)]
    return [(x509.NameConstraints(None, excluded), True)] if count else []


def names(kind: str, count: int) -> list[tuple[x509.ExtensionType, bool]]:
    """Return a SubjectAltName of *count* names, as an extension of `certs.leaf`."""
    return [(x509.SubjectAlternativeName([KINDS[kind][0](n) for n in range(count)]), False)] if count else []


# ------------------------------------------------------------------------------------------------------------- shapes


def paths(
    shape: Sequence[int],
    *,
    roots: int = 1,
    limits: int = 0,
    named: int = 0,
    kind: str = "dns",
    key: str = "P-256",
    seed: int = 0,
    same_serials: bool = False,
    at: datetime = NOON,
) -> Costly:
    """Return CAs of one name on each level, every one signed by the key above, and an expired device below them.

    So each choice of one CA on every level is a path, and every signature on it is good.

    Args:
        shape: how many CAs there are on each level below the registered ones.
        roots: how many CAs of one name are registered.
        limits: how many subtrees each CA excludes.
        named: how many names the device has beside its subject.
        key: the kind of all keys; *seed* tells the keys of two families apart.
        same_serials: whether all certificates have one serial number.
        at: when the device expired, but for a day.
    """
    private = certs.key(key, 7000 + seed)

    def make(name: str, signer: Issued | None, serial: int) -> Issued:
        number = 1 if same_serials else serial
        unlike = certs.name(name, organization=f"Costly {seed}")
        # CAs of one name, key and serial number still differ: their ends of validity do
        end = at + 3650 * DAY + serial * DAY
        return certs.ca(
            unlike,
            signer,
            private=private,
            serial=number,
            more=subtrees(kind, limits),
            not_before=at - 3650 * DAY,
            not_after=end,
        )

    top = tuple(make("Top", None, number + 1) for number in range(roots))
    sent: list[Issued] = []
    above = top[0]
    for level, width in enumerate(shape):
        here = [make(f"Level {level}", above, 100 * (level + 1) + number) for number in range(width)]
        sent += here
        above = here[0]
    leaf = certs.leaf(
        DEVICE,
        above,
        more=names(kind, named),
        not_before=at - 3650 * DAY,
        not_after=at - DAY,
        serial=1 if same_serials else None,
    )
    return Costly(top, leaf, tuple(sent))


SHAPES: Final = ((3, 3, 3), (2, 2, 2, 2), (9,), (4, 5), (1,) * 8, (1,) * 9, (2, 2, 2, 1, 1, 1))


def families() -> Iterator[tuple[str, Callable[[], Costly]]]:
    """Return the families by name, each with a function that makes its worst member."""
    for shape, kind in product(SHAPES, KINDS):
        for limits, named in ((128, 128), (60, 128), (10, 8), (2, 2)):
            label = f"{_text(shape)}, {limits} subtrees against {named} names, {kind}"
            yield label, partial(paths, shape, roots=10, limits=limits, named=named, kind=kind)
    for shape, key, limits in product(SHAPES, ("P-256", "P-384", "P-521", "Ed448", "RSA-8192"), (0, 1)):
        yield f"{_text(shape)}, {limits} subtrees, {key}", partial(paths, shape, roots=10, limits=limits, key=key)


def _text(shape: Sequence[int]) -> str:
    return "-".join(map(str, shape))
