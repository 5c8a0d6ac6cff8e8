"""The pages at /docs/errors/<code>: cause, what a device sees, and cure of every code.

What a page says of a code comes from shared/errors.py: the sentence with the reason, the advice, the HTTP status. This
module adds the causes that are usual, and commands. The pages are HTML without scripts. `python -m infra.generate`
writes them to console/errors, from where the console function serves them.
"""

import html
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from functions.web.problem import status_of
from shared.errors import Refused, TrustError, every_error

_TITLES: Final = {  # codes of answers that are no error class
    "allowed": ("The client is let in.", "Nothing to do."),
    "token_required": (
        "The certificate part is satisfied. The broker asks the client for its token next.",
        "Give the client a token that the broker knows, or change the security level.",
    ),
    "internal": (
        "Something went wrong in the service. The answer has an id, and the log of the service has the same id.",
        "Repeat the call. If the answer stays, send the id to the operator of the service.",
    ),
    "key_not_opened": (
        "A private key could not be opened with the master keys of the service.",
        "The operator of the service checks TRUST_KEYS: it must name the master keys with which the key was sealed.",
    ),
}
# Answers of the HTTP server and of the HAProxy edge, which come before any function
_SERVERS: Final[dict[str, tuple[int | None, str, str]]] = {
    "malformed_request": (400, "The request cannot be read as HTTP/1.1.", "Send the request with an HTTP library."),
    "header_too_large": (
        431,
        "The header has more than 64 KiB or 100 lines.",
        "Send fewer or shorter header lines. A certificate belongs into the body.",
    ),
    "path_too_long": (414, "The path is longer than 4 KiB.", "Send the data in the body."),
    "upgrade_with_body": (
        400,
        "The request has a body and asks for another protocol.",
        "Set the HTTP library to HTTP/1.1 without an upgrade.",
    ),
    "server_busy": (503, "The server has too many connections.", "Try again in a few seconds."),
    "edge_stale": (
        None,
        "The agent of the edge has not reached the service for minutes, so the edge refuses new devices.",
        "The operator of the edge looks at the log of the agent: the key, the address and the network.",
    ),
    "user_name_missing": (
        None,
        "The token of this device decides, and the client sent no user name. The token of a device counts for this "
        "device alone.",
        "Set the user name to the client ID, and the password to the token.",
    ),
    "token_of_another": (
        None,
        "The token of this device decides, and the user name is not the client ID.",
        "Set the user name to the client ID, and the password to the token of this device.",
    ),
}
_SOURCES: Final = ("shared.errors", "functions.web.errors")  # not the errors of commands
_NO_ERROR: Final = {"allowed", "token_required"}


class Cause(msgspec.Struct, frozen=True):
    """What a page adds to the sentences of a code.

    Args:
        why: usual causes.
        steps: what to do, in order.
        commands: for a terminal, in order.
    """

    why: str
    steps: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


_SHOW: Final = (
    "openssl x509 -in device.pem -noout -subject -issuer -dates -ext basicConstraints,keyUsage,extendedKeyUsage"
)
_PUBLISH: Final = (
    "mosquitto_pub -h HOST -p 8883 --cafile server-ca.pem --cert device.pem --key device.key -i CLIENT_ID -t t -m m"
)
_ISSUE: Final = (
    "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout device.key -out device.csr "
    '-subj "/CN=d:TYPE:DEVICE"'
)
_SIGN: Final = (
    "printf 'basicConstraints=CA:FALSE\\nkeyUsage=digitalSignature\\nextendedKeyUsage=clientAuth\\n' > device.ext",
    "openssl x509 -req -in device.csr -CA ca.pem -CAkey ca.key -days 365 -extfile device.ext -out device.pem",
)
_REISSUE: Final = (_ISSUE, *_SIGN)

CAUSES: Final[dict[str, Cause]] = {
    "sni_missing": Cause(
        "The device connects to an IP address, or its MQTT library does not send the server name. Without the name the "
        "service cannot know the organization.",
        ("Let the device connect to the host name that the advice states.", "Switch SNI on in the MQTT library."),
        ("openssl s_client -connect HOST:8883 -servername HOST -brief </dev/null",),
    ),
    "sni_unknown": Cause(
        "The device connects to an alias of the host, to the host of another service, or to a custom domain that the "
        "organization has not listed or has switched off.",
        (
            "Let the device connect to the host that the advice states.",
            "For a custom domain: list the domain under Connection security, and switch custom domains on.",
        ),
    ),
    "org_unknown": Cause(
        "The organization id in the server name or in the client ID does not exist, or was deleted.",
        ("Compare the id with the one that the console shows at the top.",),
    ),
    "client_id_invalid": Cause(
        "The client ID has a space, a missing part, or another order of its parts.",
        ("Set the client ID to the form that the advice states.",),
    ),
    "org_mismatch": Cause(
        "The server name is of one organization, and the client ID of another. Or the key of the broker is of another "
        "organization.",
        ("Use the same organization id in both.",),
    ),
    "tls_required": Cause("The client connected to the port without TLS.", ("Connect to port 8883, with TLS.",)),
    "certificate_missing": Cause(
        "The device has no certificate, the MQTT library was not given the certificate and its key, or the TLS server "
        "does not ask for a certificate.",
        (
            "Configure certificate and key in the MQTT library.",
            "If devices of this type use tokens, choose a level that takes a token under Connection security.",
        ),
        (_PUBLISH,),
    ),
    "certificate_malformed": Cause(
        "The octets of the certificate are not those that its CA signed, or the software that issued the certificate "
        "does not follow RFC 5280. The reason names the field.",
        (
            "Install the file that the CA issued, unchanged.",
            "If that file is refused as well, issue a new certificate.",
        ),
        ("openssl x509 -in device.pem -noout -text", *_REISSUE),
    ),
    "no_trusted_ca": Cause(
        "No CA is registered, or all are deactivated.",
        ("Open CA certificates in the console and add the CA that signs the devices' certificates, or activate it.",),
    ),
    "untrusted_issuer": Cause(
        "The CA that signed the certificate is not registered. Often another CA is registered: the one of the server "
        "certificate, or the root while an intermediate signed the device. Or the device does not send its "
        "intermediate certificates, or the broker passes only the first one.",
        (
            "Look at the issuer of the device's certificate.",
            "Add the certificate of that issuer under CA certificates.",
            "Or install a file on the device that has its certificate first and the intermediates after it.",
        ),
        (_SHOW, "cat device.pem intermediate.pem > chain.pem"),
    ),
    "signature_invalid": Cause(
        "The CA was created again with the same name and a new key, or the certificate was changed after signing.",
        ("Compare the fingerprints of the two CA certificates.", "Add the new CA certificate; the old one may stay."),
        ("openssl x509 -in ca.pem -noout -fingerprint -sha256", "openssl verify -CAfile ca.pem device.pem"),
    ),
    "chain_invalid": Cause(
        "A certificate above the device's is no CA, or has a limit: path length, key usage, name constraints, a "
        "required policy. The reason names the certificate and the limit.",
        ("Issue the CA certificate again without the limit, or issue the device's certificate from another CA.",),
        ("openssl x509 -in ca.pem -noout -text",),
    ),
    "weak_key": Cause(
        "The key is too short, of a kind that brokers cannot use, or known to others (ROCA, Debian's weak keys).",
        ("Make a new key on the device, and issue a certificate for it.",),
        _REISSUE,
    ),
    "weak_signature": Cause(
        "The certificate was signed with SHA-1 or MD5, often by an old script.",
        ("Issue the certificate again with SHA-256.",),
        ("openssl x509 -req -sha256 -in device.csr -CA ca.pem -CAkey ca.key -days 365 -out device.pem",),
    ),
    "ca_inactive": Cause(
        "The CA that vouches for the device was deactivated.",
        ("Activate the CA under CA certificates, if its devices may connect.",),
    ),
    "certificate_expired": Cause(
        "The validity of the device's certificate is over.",
        ("Issue a new certificate and install it on the device.",),
        (_SHOW, *_SIGN),
    ),
    "certificate_not_yet_valid": Cause(
        "The clock of the machine that issues certificates is ahead, or the certificate was issued for later.",
        ("Wait until the time in the reason.", "Or correct the clock, and issue the certificate again."),
        ("date -u", _SHOW),
    ),
    "ca_expired": Cause(
        "The validity of a CA above the device is over. The device's own certificate may still be valid.",
        (
            "Renew the CA with the same key: the certificates of its devices stay valid. Add the renewed certificate.",
            "With a new key, issue the devices' certificates again.",
        ),
        ("openssl x509 -in ca.pem -signkey ca.key -days 3650 -out ca-renewed.pem",),
    ),
    "wrong_key_usage": Cause(
        "The certificate is for servers, or for a CA, or its key may not sign. TLS clients need clientAuth and "
        "digitalSignature, where the extensions are present.",
        ("Issue the certificate again with the extension that the advice states.",),
        _REISSUE,
    ),
    "certificate_revoked": Cause(
        "The device, its certificate, its serial number, its key or its CA was put on the deny list.",
        ("Look at the deny list under Connection security: each entry states its reason and who made it.",),
    ),
    "identity_missing": Cause(
        "Neither the common name nor an e-mail name in the certificate has the form d:type:device. Names without a "
        "type, or with the organization in front (d:org:type:device), do not count.",
        ("Issue the certificate again with the name that the advice states.",),
        _REISSUE,
    ),
    "identity_mismatch": Cause(
        "The device uses the client ID of another device, or the names differ in upper and lower case.",
        ("Set the client ID that the advice states, or issue a certificate for the client ID.",),
        (_SHOW,),
    ),
    "type_certificate_refused": Cause(
        "The certificate names a type (d:type:) and no device.",
        ("Switch type certificates on under Connection security, or issue a certificate for each device.",),
        _REISSUE,
    ),
    "passphrase_wrong": Cause(
        "The passphrase is another one, or has a line break or a space at its end from copying.",
        ("Try the passphrase on your own machine.",),
        ("openssl pkey -in key.pem -noout",),
    ),
    "key_mismatch": Cause(
        "The key file belongs to another certificate.",
        ("Compare the public keys: both commands must print the same.",),
        ("openssl x509 -in cert.pem -noout -pubkey | sha256sum", "openssl pkey -in key.pem -pubout | sha256sum"),
    ),
    "not_a_ca": Cause(
        "The file holds the certificate of a device or of a server, not that of the CA that signed it.",
        ("Choose the file of the CA, usually ca.pem or root.pem.",),
        ("openssl x509 -in ca.pem -noout -ext basicConstraints",),
    ),
    "private_key_given": Cause(
        "The file has a private key in it. The service keeps no part of such a file.",
        ("Save the certificate alone.", "If others may have seen the file, make a new key."),
        ("openssl x509 -in file.pem -out cert.pem",),
    ),
    "not_authenticated": Cause(
        "The key was revoked, or key or token were copied incompletely.",
        ("Make a new key with `python -m functions.admin key create`, and replace the old one where it is used.",),
    ),
}

_DEVICE: Final = (
    "The TLS handshake succeeds. Through the HAProxy edge, the device then gets CONNACK 5 (not authorized) in MQTT "
    "3.1.1, or CONNACK 0x87 in MQTT 5 with this code as Reason String, and the connection is closed. Other brokers "
    "close the connection or answer CONNACK 5."
)


def pages() -> dict[str, str]:
    """Return the HTML of each page by its file name below console/errors."""
    entries = dict(_entries())
    made = {f"{code}.html": _page(code, *entry) for code, entry in entries.items()}
    made |= {f"{code}.html": _server_page(code, *answer) for code, answer in _SERVERS.items()}
    listed = "".join(f'<li><a href="{code}">{code}</a></li>\n' for code in sorted((*entries, *_SERVERS)))
    made["index.html"] = _html(
        "Errors", f"<p>What each code means, and what to do.</p>\n<ul>\n{listed}</ul>\n", up=".."
    )
    return made


def _entries() -> Iterator[tuple[str, tuple[str, str, type[TrustError] | None]]]:
    """Yield each code of the API with its sentences and its class; of several classes with one code, the first."""
    seen = set(_TITLES)
    for code, (says, mend) in _TITLES.items():
        yield code, (says, mend, None)
    for kind in every_error():
        if kind.code not in seen and kind.__module__ in _SOURCES:
            seen.add(kind.code)
            yield kind.code, (kind.says, kind.mend, kind)


def _page(code: str, says: str, mend: str, kind: type[TrustError] | None) -> str:
    cause = CAUSES.get(code)
    parts = [f"<h2>What happened</h2>\n{_sentence(says)}"]
    if cause is not None:
        parts.append(_paragraph(cause.why))
    elif kind is not None and kind.__doc__:
        parts.append(_paragraph(kind.__doc__.split("\n\n")[0]))
    if kind is not None and issubclass(kind, Refused):
        parts.append(f"<h2>What the device sees</h2>\n{_paragraph(_DEVICE)}")
    elif code not in _NO_ERROR:
        status = 500 if kind is None else status_of(kind)
        parts.append(f"<h2>The answer</h2>\n{_paragraph(f'HTTP status {status}, with this code in the field code.')}")
    parts.append("<h2>What to do</h2>\n" + _sentence(mend))
    if cause is not None and cause.steps:
        parts.append("<ol>\n" + "".join(f"<li>{html.escape(step)}</li>\n" for step in cause.steps) + "</ol>\n")
    if cause is not None and cause.commands:
        parts.append(
            "<p>Commands:</p>\n" + "".join(f"<pre><code>{html.escape(line)}</code></pre>\n" for line in cause.commands)
        )
    return _html(code, "".join(parts) + '<p><a href="./">All codes</a></p>\n', up="..")


def _server_page(code: str, status: int | None, says: str, mend: str) -> str:
    if status is None:
        answer = f"<h2>What the device sees</h2>\n{_paragraph(_DEVICE)}"
    else:
        answer = f"<h2>The answer</h2>\n{_paragraph(f'HTTP status {status}, with this code in the field code.')}"
    body = f"<h2>What happened</h2>\n{_sentence(says)}{answer}<h2>What to do</h2>\n{_sentence(mend)}"
    return _html(code, body + '<p><a href="./">All codes</a></p>\n', up="..")


def _sentence(template: str) -> str:
    """Return a paragraph of a template; a fact is shown by its name: ‹issuer›."""
    text = html.escape(template)
    shown = re.sub(r"{(\w+)}", r"<var>\1</var>", text)
    return f"<p>{shown}</p>\n" if text else ""


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(' '.join(text.split()))}</p>\n"


def _html(title: str, body: str, *, up: str) -> str:
    return (
        "<!doctype html>\n"
        '<html lang="en">\n'
        "<head>\n"
        '<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} · MQTT Trust</title>\n"
        f'<link rel="stylesheet" href="{up}/../console/style.css">\n'
        "</head>\n"
        "<body>\n"
        f'<main id="content">\n<h1>{title}</h1>\n{body}</main>\n'
        "</body>\n"
        "</html>\n"
    )
