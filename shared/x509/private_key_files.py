"""Private key files as people have them: PEM with text around it, DER, PKCS#12 -> a private key."""

from typing import Final

from shared.errors import NotAKey
from shared.x509.certificate_files import Content, Part, check_size, content_of
from shared.x509.file_forms import unwrap
from shared.x509.pem import blocks, is_pem
from shared.x509.pkcs12 import Pkcs12, looks_like_pkcs12
from shared.x509.private_keys import PrivateKey, open_block, open_der

KEY_FILE_MAX: Final = 64 * 1024  # bytes


def load_private_key(
    data: bytes, passphrase: str | None, *, limit: int = KEY_FILE_MAX, part: Part = "private_key"
) -> PrivateKey:
    """Return the only private key in *data*, a file of up to *limit* bytes: PEM with text around it, DER or PKCS#12.

    An empty passphrase counts as not given.

    Raises: TooLarge, NotAKey, PassphraseRequired, PassphraseWrong, PassphraseUnneeded (their part is `passphrase`),
    KdfTooCostly, KeyUnsupported (neither RSA up to 4096 bits nor elliptic curve)."""
    check_size(data, limit, part=part, hint="Save the key alone.")
    data = unwrap(data)
    if looks_like_pkcs12(data):
        return Pkcs12(data, part).key(passphrase or None)
    if not is_pem(data):
        return open_der(data, passphrase or None, part)
    keys = [block for block in blocks(data) if block.is_private_key]
    if not keys:
        raise NotAKey(part=part)
    if len(keys) > 1:
        raise NotAKey(part=part, found=f"{len(keys)} private keys are in the file", hint="Save the one alone.")
    return open_block(keys[0], passphrase or None, part)


def holds_private_key(data: bytes) -> bool:
    """Whether *data* holds a private key, encrypted or not. PKCS#12 does not count."""
    data = unwrap(data)
    if is_pem(data):
        return any(block.is_private_key for block in blocks(data))
    return content_of(data) in (Content.KEY, Content.ENCRYPTED_KEY)
