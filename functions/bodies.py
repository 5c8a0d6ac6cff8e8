"""What the API takes: the bodies' types, from which the OpenAPI document is made too.

A file is PEM as text, or DER in base64; in multipart/form-data it is the file itself. Secrets have no repr.
"""

from typing import Annotated

from msgspec import Meta

from functions.web.contract import Body
from shared.records import CAStatus, DenialKind
from shared.validation.csr import KEY_ALGORITHMS
from shared.validation.policy import Level

Comments = Annotated[str, Meta(max_length=1000, description="Up to 1,000 characters")]
File = Annotated[str, Meta(description="PEM as text, or DER in base64")]
Short = Annotated[str, Meta(max_length=256)]


class UploadCA(Body, frozen=True, kw_only=True):
    certificate: File
    comments: Comments = ""


class UploadServerCert(Body, frozen=True, kw_only=True):
    """*certificate*: the leaf, with its chain or not; or PKCS#12, which brings the key."""

    certificate: File
    chain: File | None = None
    private_key: File | None = None
    passphrase: Annotated[str, Meta(max_length=1024)] | None = None
    comments: Comments = ""

    def __repr__(self) -> str:
        return "UploadServerCert(…)"


class ActivateServerCert(Body, frozen=True, kw_only=True):
    """*id*: a server certificate's, or `default` for the platform's."""

    id: Short


class GenerateCSR(Body, frozen=True, kw_only=True):
    organization: Short | None = None
    organizational_unit: Short | None = None
    locality: Short | None = None
    state: Short | None = None
    country: Short | None = None
    email_address: Short | None = None
    common_name: Short | None = None
    key_algorithm: Annotated[str, Meta(description=f"One of {', '.join(KEY_ALGORITHMS)}")] = KEY_ALGORITHMS[0]
    comments: Comments = ""


class FulfillCSR(Body, frozen=True, kw_only=True):
    """*id* may stand in the path instead."""

    certificate: File
    id: Short | None = None


class ChangeCA(Body, frozen=True, kw_only=True):
    status: CAStatus | None = None
    comments: Comments | None = None


class ChangeServer(Body, frozen=True, kw_only=True):
    comments: Comments


class Preview(Body, frozen=True, kw_only=True):
    certificate: File


class PolicyRule(Body, frozen=True, kw_only=True):
    device_type: str
    level: Level


class PutPolicy(Body, frozen=True, kw_only=True):
    default: Level
    rules: tuple[PolicyRule, ...] = ()


class CustomDomains(Body, frozen=True, kw_only=True):
    enabled: bool
    domains: tuple[Annotated[str, Meta(max_length=255)], ...] = ()


class PutSettings(Body, frozen=True, kw_only=True):
    """What is not sent stays as it is."""

    custom_domains: CustomDomains | None = None
    type_certificates: bool | None = None


class Deny(Body, frozen=True, kw_only=True):
    """*kind* and *value*; or a *certificate*, whose fingerprint is meant."""

    kind: DenialKind | None = None
    value: Short | None = None
    certificate: File | None = None
    reason: Comments = ""


class ServedHost(Body, frozen=True, kw_only=True):
    server_name: Annotated[str, Meta(max_length=253)]
    version: Annotated[str, Meta(max_length=64)]


class Served(Body, frozen=True, kw_only=True):
    """*edge*: what the edge calls itself, shown in the activity list."""

    edge: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
    hosts: Annotated[tuple[ServedHost, ...], Meta(max_length=500)]
