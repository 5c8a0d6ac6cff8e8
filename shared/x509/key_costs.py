"""The cost of opening an encrypted private key, read from its ASN.1 before anything is decrypted.

A file is opened only if its whole cost is within the limits, and only if its algorithms can be decrypted here.
"""

from typing import Final

import msgspec

from shared.errors import KdfTooCostly, NotAKey
from shared.x509.certificate_files import Part
from shared.x509.der import INTEGER, OCTET_STRING, SEQUENCE, Element

ROUNDS_MAX: Final = 3_000_000  # iterations of all key derivations in one file
SCRYPT_MAX: Final = 32 * 1024 * 1024  # bytes, 128·N·r·p of all scrypt in one file: RFC 7914, section 2

_ENCRYPTED_ANOTHER_WAY: Final = "openssl pkcs8 -topk8 -v2 aes-256-cbc"


CHEAPER_KEY: Final = "openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 100000 -in key.pem -out new-key.pem"


class OpeningCost(msgspec.Struct, frozen=True):
    """What it costs to open something: *rounds* of a hash, *memory* of scrypt in bytes."""

    rounds: int = 0
    memory: int = 0

    def __add__(self, other: "OpeningCost") -> "OpeningCost":
        return OpeningCost(self.rounds + other.rounds, self.memory + other.memory)


_PKCS5: Final = bytes.fromhex("2a864886f70d0105")  # 1.2.840.113549.1.5, RFC 8018
_PKCS12_PBE: Final = bytes.fromhex("2a864886f70d010c01")  # 1.2.840.113549.1.12.1, RFC 7292 appendix C
_PBKDF2: Final = _PKCS5 + b"\x0c"
_PBES2: Final = _PKCS5 + b"\x0d"
_SCRYPT: Final = bytes.fromhex("2b06010401da47040b")  # 1.3.6.1.4.1.11591.4.11, RFC 7914 section 7


def cost_of(algorithm: Element, part: Part) -> OpeningCost:
    """Return the cost of an encryption's AlgorithmIdentifier (RFC 8018 appendix A; RFC 7292 appendix C).

    Raises: NotAKey for an unknown algorithm, whose cost is unknown too."""
    try:
        oid, parameters = algorithm.children
        values = parameters.children
        if oid.content == _PBES2:
            return cost_of(values[0], part)
        if oid.content == _SCRYPT:
            n, r, p = map(positive, values[1:4])
            return OpeningCost(memory=128 * n * r * p)
        if (oid.content == _PBKDF2 or oid.content[:-1] == _PKCS12_PBE) and values[0].tag == OCTET_STRING:
            return OpeningCost(rounds=positive(values[1]))
    except (ValueError, IndexError):
        pass
    raise unknown_encryption(part)


# The algorithms with which cryptography decrypts a key, as object identifiers. For all others it raises the same error
# as for a wrong passphrase.
_PBES1_READ: Final = (_PKCS12_PBE + b"\x03", _PKCS12_PBE + b"\x06")  # 3DES; RC2 with 40 bits
_CIPHERS_READ: Final = (
    bytes.fromhex("2a864886f70d0307"),  # des-EDE3-CBC, RFC 8018 appendix B.2.2
    *(bytes.fromhex("6086480165030401") + mode for mode in (b"\x02", b"\x16", b"\x2a")),  # AES-128, 192, 256 in CBC
)
_PRFS_READ: Final = tuple(bytes.fromhex("2a864886f70d02") + bytes([arc]) for arc in range(7, 12))  # HMAC, SHA-1 to -512


def check_readable(algorithm: Element, part: Part) -> None:
    """Refuse *algorithm* where no passphrase could open a key encrypted with it. Raises: NotAKey."""
    try:
        oid, parameters = algorithm.children
        if oid.content in _PBES1_READ:
            return
        derivation, cipher = parameters.children
        kind, values = derivation.children
        prfs = [value.children[0].content for value in values.children if value.tag == SEQUENCE]
        is_known = oid.content == _PBES2 and kind.content in (_PBKDF2, _SCRYPT)
        if is_known and cipher.children[0].content in _CIPHERS_READ and all(prf in _PRFS_READ for prf in prfs):
            return
    except (ValueError, IndexError):
        pass
    raise unknown_encryption(part)


def positive(number: Element) -> int:
    """Return the value of an INTEGER of 1 or more. Raises: ValueError."""
    value = int.from_bytes(number.content, signed=True)
    if number.tag != INTEGER or value < 1:
        raise ValueError("not a positive INTEGER")
    return value


def check_cost(cost: OpeningCost, part: Part, command: str = CHEAPER_KEY) -> None:
    """Refuse what costs more than the limits. *command* makes a file that costs less. Raises: KdfTooCostly."""
    if cost.rounds > ROUNDS_MAX:
        found = f"{_format_number(cost.rounds)} rounds"
        raise KdfTooCostly(part=part, found=found, limit=f"{ROUNDS_MAX:,} rounds", command=command)
    if cost.memory > SCRYPT_MAX:
        memory = f"{_format_number(-(-cost.memory // 2**20))} MiB of memory"
        limit = f"{SCRYPT_MAX // 2**20} MiB"
        raise KdfTooCostly(part=part, found=memory, limit=limit, command=command)


def _format_number(number: int) -> str:
    return f"{number:,}" if number < 10**18 else "more than 10^18"


def unknown_encryption(part: Part) -> NotAKey:
    """Return the refusal of a key whose encryption cannot be read here."""
    return NotAKey(
        part=part,
        found="The key is encrypted in a way that is not read here",
        hint=f"Encrypt it another way: {_ENCRYPTED_ANOTHER_WAY}",
    )
