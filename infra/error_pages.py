"""The pages at /docs/errors/<code>: cause, what a device sees, and cure of every code.

What a page says of a code comes from shared/errors.py: the sentence with the reason, the advice, the HTTP status. This
module owns everything else: the causes that are usual, the steps, the commands, and what a device sees. The pages are
HTML without scripts. `python -m infra.generate` writes them to console/errors, from where the console function serves
them.
"""

import html
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from functions.web.problem import status_of
from infra.doc_page import doc_page
from shared.errors import TrustError, every_error

_TITLES: Final = {  # codes of answers that are no error class
    "allowed": ("The client may connect.", "Nothing is to be done."),
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
    "client_id_missing": (
        None,
        "The client sent an empty client ID. The broker would choose a client ID that no verdict has checked.",
        "Set the client ID to d:org:type:device, with the organization, type and id of the device.",
    ),
    "too_long_to_register": (
        None,
        "The session cannot be entered into the table of the edge, because its description has more than 999 "
        "characters. Without the entry, a withdrawal could not end the session.",
        "Use shorter types and ids of devices, or issue the certificate from a path with fewer CAs.",
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
        answer: where the code is found, for a code that is in no HTTP status of its own.
    """

    why: str
    steps: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    answer: str = ""


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
        "Somebody put the device, its certificate, its serial number, its key or its CA on the deny list.",
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
    "org_suspended": Cause(
        "The operator of the platform has suspended the organization. Its sessions end, its devices are refused, and "
        "its keys get this code.",
        ("The operator of the platform runs the command below when the reason is settled.",),
        ("python -m functions.admin org resume ORG",),
    ),
    "org_gone": Cause(
        "The operator of the platform deleted the organization while the call was in progress, or while its keys were "
        "in use.",
        ("Ask the operator of the platform for a key of the new organization.",),
        ("python -m functions.admin key create --org ORG --role operator",),
    ),
    "token_refused": Cause(
        "The token of the sign-in service has ended, is for another service, is from another issuer, or its signature "
        "is not valid. The clocks of both services may differ by a minute at most.",
        ("Sign in again.", "If that does not help, compare the clocks, and TRUST_OIDC_* with the sign-in service."),
        ("date -u",),
    ),
    "role_not_granted": Cause(
        "The sign-in is valid, but its token names no organization and role of this service, or several.",
        (
            "The administrator of the sign-in service gives the person one organization, and the role viewer or "
            "operator.",
            "Sign in again: the old token keeps its old content.",
        ),
    ),
    "issuer_unavailable": Cause(
        "The sign-in service does not answer, or its description of itself is not consistent. Tokens cannot be "
        "verified meanwhile. API keys work.",
        ("Wait a minute and repeat the call.", "Or use an API key."),
        ("curl -s ISSUER/.well-known/openid-configuration",),
    ),
    "forbidden": Cause(
        "Viewers read, operators change, brokers ask verifyClient, edges fetch certificates. A key has one role.",
        ("Use a key with the role that the reason states.",),
        ("python -m functions.admin key create --org ORG --role operator",),
    ),
    "insecure_transport": Cause(
        "The call asks for a private key, or for a page of the feed for edges, over plain HTTP. A listener on the "
        "network would see the key.",
        (
            "Use an address that begins with https://.",
            "For an edge on the same machine: set TRUST_EDGE_PLAIN=loopback.",
        ),
    ),
    "not_found": Cause(
        "The id is wrong, the resource was deleted, or the resource belongs to another organization. A resource of "
        "another organization gets the same answer as a resource that does not exist.",
        ("Look for the id in the list of the resource.",),
        ("curl -s -u KEY:TOKEN URL/api/v0002/authentication/cacertificates",),
    ),
    "wrong_value": Cause(
        "A field has a value of another type than the call takes, is too long, or is none of the values that the field "
        "takes. The reason names the field and the values.",
        ("Compare the field with the description of the call in GET /openapi.json.", "Correct the value."),
    ),
    "unknown_field": Cause(
        "The body has a field that the call does not have. Often the name is misspelled, or in snake case.",
        ("Use the names that the advice states.",),
    ),
    "missing_field": Cause(
        "The body has no field of that name, or the name is misspelled.",
        ("Add the field to the body.",),
    ),
    "malformed_body": Cause(
        "The body is cut off, is not JSON or multipart/form-data, or its Content-Type is that of the other format.",
        (
            "Set Content-Type to the format of the body.",
            "Write the body with a JSON library, or let curl make the form, as below.",
        ),
        ("curl -s -u KEY:TOKEN -F certificate=@ca.pem URL/api/v0002/authentication/cacertificates",),
    ),
    "malformed_base64": Cause(
        "The text has the characters of base64, but its length is not that of base64: a part is missing.",
        ("Send the PEM text as it is, line ends included.", "Or encode the DER file again."),
        ("base64 -w0 ca.der",),
    ),
    "too_many_fields": Cause(
        "A query or form has more fields than any call takes, or a file was written into the query.",
        ("Send the fields of the call only.", "Send a file in the body: as JSON or multipart/form-data."),
    ),
    "method_not_allowed": Cause(
        "The address exists, and does not have this method. The header Allow lists its methods.",
        ("Use a method that the advice states.",),
    ),
    "unsupported_media_type": Cause(
        "The header Content-Type names a format that the call does not take.",
        ("Set Content-Type to application/json or multipart/form-data.",),
    ),
    "request_timeout": Cause(
        "The connection is slow or was interrupted, or Content-Length is larger than the body.",
        ("Send the request again.", "If the answer stays: compare Content-Length with the length of the body."),
    ),
    "file_too_large": Cause(
        "The file has more than a certificate, a key or a chain needs: a whole trust store, or text around the PEM "
        "block.",
        ("Save the certificate alone.",),
        ("openssl x509 -in file.pem -out cert.pem",),
    ),
    "precondition_required": Cause(
        "Two people may change a record at the same time. So a change names the version that it is based on.",
        ("Read the record. Its version is the header ETag.", "Send the change with that value in If-Match."),
    ),
    "stale": Cause(
        "Another person or program changed the record after it was read.",
        ("Read the record again.", "Look at what was changed.", "Send the change with the new ETag in If-Match."),
    ),
    "rate_limited": Cause(
        "A program uploads in a loop, or many failed attempts count: a wrong passphrase counts too. "
        "TRUST_RATE_PER_MINUTE is the limit of new server certificates and requests.",
        ("Wait for the seconds that the header Retry-After states.", "Repeat the call."),
    ),
    "unavailable": Cause(
        "The store does not answer in time: the network, the rights of the function, or the store itself. Devices are "
        "refused meanwhile, because a verdict needs the store.",
        (
            "Repeat the call.",
            "If the answer stays: the operator of the service looks at the log, where the error of the store is.",
        ),
    ),
    "keys_unavailable": Cause(
        "The key service (AWS KMS or Google Cloud KMS) does not answer, or the function has no right to use the key. "
        "Verdicts need no key service: devices connect meanwhile.",
        ("Repeat the call.", "If the answer stays: the operator looks at the log and at TRUST_KEYS."),
    ),
    "key_work_unavailable": Cause(
        "The machine is busy with other private keys, or this key takes too long to open.",
        ("Repeat the call in a minute.", "Encrypt the key with fewer rounds, if the passphrase takes long to check."),
        ("openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 100000 -in key.pem -out new-key.pem",),
    ),
    "overloaded": Cause(
        "More requests of this organization wait than the service keeps. Verdicts for devices have their own places.",
        ("Repeat the call in a few seconds, with fewer calls at the same time.",),
    ),
    "internal": Cause(
        "A defect of the service. Nothing of the request is in the answer.",
        ("Search the log of the service for the id in the answer.",),
    ),
    "key_not_opened": Cause(
        "TRUST_KEYS names another key service or folder than before, a master key was deleted or disabled, or a backup "
        "was restored without its master keys.",
        ("Set TRUST_KEYS to the master keys of that time, or restore the folder of keys.", "Repeat the call."),
        ("python -m functions.admin reseal",),
    ),
    "rotation_refused": Cause(
        "The key service does not rotate this key: a rotation is under way, the key is disabled, or the number of "
        "rotations is used up.",
        ("Follow the advice in the message.", "Run the command again."),
        ("python -m functions.admin reseal --rotate",),
        answer="The command `functions.admin reseal --rotate` prints the message. No call over HTTP has this code.",
    ),
    "too_busy": Cause(
        "Several programs change the same record at the same time.",
        ("Repeat the call.",),
    ),
    "document_too_large": Cause(
        "What is stored together has a limit: comments, rules, and names in a certificate count.",
        ("Shorten comments, or delete entries that are not needed.", "Repeat the call."),
    ),
    "too_many_cas": Cause(
        "The organization has registered as many CA certificates as there may be.",
        ("Sort the list under CA certificates by the last use.", "Delete a CA that no device has used for long."),
    ),
    "too_many_cas_of_one_name": Cause(
        "Every renewal of a CA added a certificate with the same subject, and the old ones were not deleted. A verdict "
        "tries each of them.",
        ("Delete the expired CA certificates of that name.",),
    ),
    "too_many_denials": Cause(
        "Entries of certificates that have expired are still on the list.",
        (
            "Remove entries that are no longer needed.",
            "To refuse many devices at once, deny or deactivate their CA.",
        ),
    ),
    "too_many_server_certificates": Cause(
        "Expired certificates and unused requests are still in the list.",
        ("Delete a server certificate or request that is not needed any more.",),
    ),
    "active_certificate": Cause(
        "Devices of the organization see this certificate in the TLS handshake.",
        ("Activate another certificate, or the platform's default.", "Delete the certificate then."),
    ),
    "csr_not_fulfilled": Cause(
        "The request was made here, and the certificate that a CA signed was not uploaded yet.",
        ("Download the request.", "Let a CA sign the request.", "Upload the certificate to the request."),
        (
            "openssl x509 -req -in request.csr -CA ca.pem -CAkey ca.key -days 365 -copy_extensions copyall "
            "-out server.pem",
        ),
    ),
    "already_fulfilled": Cause(
        "A certificate was uploaded to this request before.",
        ("Renew the certificate under Server certificates.", "Upload the new certificate to the new request."),
    ),
    "domain_in_use": Cause(
        "The active server certificate is for a host below the custom domain that is to be removed.",
        ("Activate another certificate, or the platform's default.", "Remove the domain then."),
    ),
    "domain_reserved": Cause(
        "The domain is the platform's own, or is below it. Its hosts belong to all organizations.",
        ("List a domain that the organization owns.",),
    ),
    "host_mismatch": Cause(
        "The certificate has no name that covers the host of the organization. A wildcard covers one label: "
        "*.messaging.example.com covers org123.messaging.example.com.",
        ("Issue the certificate for the host that the advice states.", "For a custom domain: list the domain first."),
        (
            'openssl req -new -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj "/CN=HOST" '
            '-addext "subjectAltName=DNS:HOST"',
        ),
    ),
    "host_not_allowed": Cause(
        "A request names a host that is neither the organization's own nor below a custom domain of the organization.",
        ("Leave the common name empty, or use a host that the advice states.",),
    ),
    "use_fulfil": Cause(
        "The certificate was made from a request of this service. The private key is with that request.",
        ("Open the request in the console, and upload the certificate there.",),
    ),
    "subject_invalid": Cause(
        "A field of the subject is too long, has characters that cannot be printed, or a country that is not a code of "
        "two letters (RFC 5280, appendix A.1).",
        ("Correct the field that the reason names.",),
    ),
    "policy_invalid": Cause(
        "A rule names a device type twice, or with characters that no type has; or there are too many rules.",
        ("Correct the rule that the reason names.",),
    ),
    "denial_invalid": Cause(
        "An entry has no value of its kind: a fingerprint has 64 hex digits, an identity is d:type:device, a serial "
        "number is the id of a CA, a colon, and hex digits.",
        ("Correct the value. Or send the certificate itself, from which the service takes the value.",),
        ("openssl x509 -in device.pem -noout -fingerprint -sha256 -serial",),
    ),
    "not_a_certificate": Cause(
        "The file has another content: a key, a key store, a text, or a certificate that is cut off.",
        ("Look at what the file has.", "Send the certificate as PEM or DER."),
        (
            "openssl x509 -in file -noout -subject",
            "openssl pkcs12 -in file.p12 -nokeys -clcerts -out cert.pem",
        ),
    ),
    "several_certificates": Cause(
        "The file has a chain: several certificates, one after the other.",
        ("Save the certificate of the CA alone. The command takes the first of the file.",),
        ("openssl x509 -in chain.pem -out ca.pem",),
    ),
    "too_complex": Cause(
        "The certificate has far more names or extensions than a device or a CA needs. To read it would delay the "
        "verdicts of other devices.",
        ("Issue the certificate again with fewer names.",),
        ("openssl x509 -in cert.pem -noout -text",),
    ),
    "csr_given": Cause(
        "The file is the request (CSR), not the certificate that a CA made from it.",
        ("Let a CA sign the request.", "Upload the certificate."),
        ("openssl x509 -req -in request.csr -CA ca.pem -CAkey ca.key -days 365 -out cert.pem",),
    ),
    "self_signature_invalid": Cause(
        "The file was damaged while it was copied, or its content was changed after signing.",
        ("Copy the file again from the machine that made it.", "Compare the fingerprints on both machines."),
        ("openssl verify -check_ss_sig -CAfile ca.pem ca.pem", "openssl x509 -in ca.pem -noout -fingerprint -sha256"),
    ),
    "private_key_missing": Cause(
        "The upload has a certificate and no private key. The TLS server needs both.",
        ("Add the file with the private key, or a PKCS#12 file with both.",),
        (
            "curl -s -u KEY:TOKEN -F certificate=@server.pem -F privateKey=@server.key "
            "URL/api/v0002/authentication/servercertificates",
        ),
    ),
    "not_a_key": Cause(
        "The file has a certificate or a text in place of the private key, or the key is cut off.",
        ("Look at what the file has.", "Send the key in PEM or DER."),
        ("openssl pkey -in key.pem -noout -check",),
    ),
    "key_unsupported": Cause(
        "The key is of a kind that MQTT servers and devices do not share: Ed25519, P-521, RSA above 4096 bits.",
        ("Make a new key, and a new certificate for it.",),
        (
            "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr "
            '-subj "/CN=HOST"',
        ),
    ),
    "passphrase_required": Cause(
        "The file is encrypted.",
        ("Send the passphrase with the key.", "Or send the key without encryption, over TLS only."),
        ("openssl pkey -in key.pem -out plain.pem",),
    ),
    "passphrase_unneeded": Cause(
        "A passphrase was sent with a key that is not encrypted. Often another file was meant.",
        ("Choose the encrypted file, or leave the passphrase empty.",),
    ),
    "kdf_too_costly": Cause(
        "The file asks for so many rounds of key derivation that opening it would delay other work.",
        ("Encrypt the key again with fewer rounds, as the advice states.",),
        (
            "openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 100000 -in key.pem -out new-key.pem",
            "openssl pkcs12 -in file.p12 -aes256 -out new-file.pem",
        ),
    ),
    "chain_broken": Cause(
        "The chain is in another order, has a certificate of another CA, or a certificate is missing between two.",
        ("Put the issuer of each certificate after that certificate.",),
        (
            "openssl x509 -in server.pem -noout -subject -issuer",
            "cat intermediate.pem root.pem > chain.pem",
        ),
    ),
    "chain_too_long": Cause(
        "The file has more certificates than a path has: often a whole trust store.",
        ("Send the certificates between the leaf and its root only.",),
        ("cat intermediate.pem root.pem > chain.pem",),
    ),
    "upload_misplaced": Cause(
        "The name of the object begins with no folder that has a meaning.",
        ("Put the object under the name that the advice states.",),
        answer="The activity list has the receipt of the upload (GET /activity?kind=upload). No call has this code.",
    ),
    "use_refused": Cause(
        "A connected client asked for a topic, a queue or a virtual host that belongs to another device.",
        ("Let the device use topics under the prefix that the advice states.",),
        answer="The broker gets the refusal in its own format: `deny` with status 200, or status 403. The connection "
        "stays. What the client sees depends on the broker.",
    ),
}

_NO_HOST: Final = {"sni_missing", "sni_unknown", "org_unknown"}
# What edge/haproxy/refuse.lua answers instead of "not authorized"; a test compares the tables.
_IDENTIFIER_REJECTED: Final = {"client_id_invalid", "client_id_missing"}
_SERVER_UNAVAILABLE: Final = {"edge_stale", "too_long_to_register", "unavailable"}


def _looks(code: str) -> str:
    """Return what a device sees that is refused with *code*."""
    v3, v5 = "CONNACK 5 (not authorized)", "CONNACK 0x87"
    if code in _IDENTIFIER_REJECTED:
        v3, v5 = "CONNACK 2 (identifier rejected)", "CONNACK 0x85"
    if code in _SERVER_UNAVAILABLE:
        v3, v5 = "CONNACK 3 (server unavailable)", "CONNACK 0x88"
    handshake = "The TLS handshake succeeds. Through the HAProxy edge, the device then gets"
    if code in _NO_HOST:
        handshake = (
            "Through the HAProxy edge, the TLS handshake fails with the alert unrecognized_name (112), because no host "
            "of the edge has that name. Without TLS, or behind an edge that accepts every name, the device gets"
        )
    if code == "org_suspended":
        handshake = (
            "The edge no longer has the host of the organization, so that the TLS handshake fails with the alert "
            "unrecognized_name (112). Until the edge has heard of it, the device gets"
        )
    if code == "tls_required":
        handshake = "There is no TLS handshake. The device gets"
    return (
        f"{handshake} {v3} in MQTT 3.1.1, or {v5} in MQTT 5 with this code as Reason String, and the connection is "
        "closed. Other brokers close the connection or answer with a CONNACK packet of their own."
    )


def pages() -> dict[str, str]:
    """Return the HTML of each page by its file name below console/errors."""
    entries = dict(_entries())
    made = {f"{code}.html": _page(code, *entry) for code, entry in entries.items()}
    made |= {f"{code}.html": _server_page(code, *answer) for code, answer in _SERVERS.items()}
    listed = "".join(f'<li><a href="{code}">{code}</a></li>\n' for code in sorted((*entries, *_SERVERS)))
    made["index.html"] = doc_page(
        "Error codes",
        f'<p>What each code means, and what to do.</p>\n<ul class="columns">\n{listed}</ul>\n',
        root="../../",
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
    cause = CAUSES.get(code, Cause(""))
    parts = [f"<h2>What happened</h2>\n{_sentence(says)}"]
    if cause.why:
        parts.append(_paragraph(cause.why))
    is_refusal = hasattr(kind, "step") or code == "unavailable"
    if is_refusal:
        parts.append(f"<h2>What the device sees</h2>\n{_paragraph(_looks(code))}")
    if code not in _NO_ERROR:
        parts.append(f"<h2>The answer</h2>\n{_paragraph(cause.answer or _answer(kind, is_refusal=is_refusal))}")
    parts.append("<h2>What to do</h2>\n" + _sentence(mend))
    if cause.steps:
        parts.append("<ol>\n" + "".join(f"<li>{html.escape(step)}</li>\n" for step in cause.steps) + "</ol>\n")
    if cause.commands:
        parts.append(
            "<p>Commands:</p>\n" + "".join(f"<pre><code>{html.escape(line)}</code></pre>\n" for line in cause.commands)
        )
    return doc_page(code, "".join(parts), root="../../")


def _answer(kind: type[TrustError] | None, *, is_refusal: bool) -> str:
    status = 500 if kind is None else status_of(kind)
    if is_refusal:
        return (
            "verifyClient answers with HTTP status 200, the decision deny and this code. Every other call that fails "
            f"for this reason has HTTP status {status}, with this code in the field code."
        )
    return f"HTTP status {status}, with this code in the field code."


def _server_page(code: str, status: int | None, says: str, mend: str) -> str:
    if status is None:
        answer = f"<h2>What the device sees</h2>\n{_paragraph(_looks(code))}"
        answer += (
            "<h2>The answer</h2>\n"
            f"{_paragraph('The log of the HAProxy edge has this code. No HTTP status belongs to it.')}"
        )
    else:
        answer = f"<h2>The answer</h2>\n{_paragraph(f'HTTP status {status}, with this code in the field code.')}"
    body = f"<h2>What happened</h2>\n{_sentence(says)}{answer}<h2>What to do</h2>\n{_sentence(mend)}"
    return doc_page(code, body, root="../../")


def _sentence(template: str) -> str:
    """Return a paragraph of a template; a fact is shown by its name: ‹issuer›. Facts alone say nothing to a reader."""
    if not re.search(r"[a-z]{2}", re.sub(r"{\w+}", "", template)):
        return ""
    text = html.escape(template)
    shown = re.sub(r"{(\w+)}", r"<var>\1</var>", text)
    return f"<p>{shown}</p>\n" if text else ""


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(' '.join(text.split()))}</p>\n"
