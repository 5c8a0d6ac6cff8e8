"""Names of organizations, devices and hosts, as values (docs/rules.md, "Names").

Every pattern is matched with `fullmatch`: a trailing newline is not part of a name.
"""

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec

from shared.errors import ClientIdInvalid

CLIENT_ID_MAX: Final = 256  # characters

_ORG = re.compile(r"[a-z0-9]{6}")
_NAME = re.compile(r"[A-Za-z0-9\-_.]{1,36}")
_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class ClientClass(StrEnum):
    """The first letter of a client ID."""

    DEVICE = "d"
    GATEWAY = "g"
    APPLICATION = "a"
    SCALABLE_APPLICATION = "A"


CERTIFIED = (ClientClass.DEVICE, ClientClass.GATEWAY)  # the classes that a certificate can name
_CERTIFIED = {kind.value: kind for kind in CERTIFIED}


def is_org_id(text: str) -> bool:
    """Whether *text* is an orgId: six characters of a-z0-9."""
    return _ORG.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether *text* can be a typeId, deviceId or appId: 1 to 36 characters of A-Z a-z 0-9 - _ . ."""
    return _NAME.fullmatch(text) is not None


def is_domain(text: str) -> bool:
    """Whether *text* is a DNS name of two labels or more in lower-case A-labels (RFC 1123 2.1, RFC 5890)."""
    labels = text.split(".")
    return len(text) <= 253 and len(labels) > 1 and all(re.fullmatch(_LABEL, label) for label in labels)


class DeviceName(msgspec.Struct, frozen=True):
    """A device's or gateway's identity, as a certificate carries it: `d:typeId:deviceId`.

    An empty *device_id* means every device of the type: the identity of a type certificate.
    """

    client_class: ClientClass
    type_id: str
    device_id: str

    @classmethod
    def parse(cls, text: str) -> "DeviceName | None":
        """Return the parts of `d:thermo:42`; None where *text* is not of that form."""
        match text.split(":"):
            case [("d" | "g") as letter, type_id, device_id] if is_name(type_id) and (
                device_id == "" or is_name(device_id)
            ):
                return cls(_CERTIFIED[letter], type_id, device_id)
        return None

    @property
    def is_type(self) -> bool:
        return self.device_id == ""

    def covers(self, other: "DeviceName") -> bool:
        """Whether a certificate with this identity may be *other*: that very device, or any device of its type."""
        return self == other or (self.is_type and self.of_type() == other.of_type())

    def of_type(self) -> "DeviceName":
        return DeviceName(self.client_class, self.type_id, "")

    def __str__(self) -> str:
        return f"{self.client_class}:{self.type_id}:{self.device_id}"


class ClientId(msgspec.Struct, frozen=True):
    """The parts of an MQTT client ID of this service.

    *device* is set for devices and gateways, and None for applications.
    """

    text: str
    org_id: str
    client_class: ClientClass
    device: DeviceName | None

    @classmethod
    def parse(cls, text: str) -> "ClientId":
        """Return the parts of `d:mtxpd0:thermo:42`, `g:…`, `a:mtxpd0:app` or `A:mtxpd0:app[:instance]`.

        Raises: ClientIdInvalid."""
        if len(text) <= CLIENT_ID_MAX:
            match text.split(":"):
                case [("d" | "g") as letter, org, type_id, device_id] if (
                    is_org_id(org) and is_name(type_id) and is_name(device_id)
                ):
                    kind = _CERTIFIED[letter]
                    return cls(text, org, kind, DeviceName(kind, type_id, device_id))
                case ["a", org, app] if is_org_id(org) and is_name(app):
                    return cls(text, org, ClientClass.APPLICATION, None)
                case ["A", org, app, *instance] if (
                    is_org_id(org) and is_name(app) and len(instance) < 2 and all(map(is_name, instance))
                ):
                    return cls(text, org, ClientClass.SCALABLE_APPLICATION, None)
        raise ClientIdInvalid(part="client_id", org="<orgId>")


def messaging_host(org_id: str, domain: str) -> str:
    """Return the messaging host of an org: `mtxpd0.messaging.example.com`."""
    return f"{org_id}.messaging.{domain}"


class ServerName(msgspec.Struct, frozen=True):
    """The parts of a server name from SNI (RFC 6066, section 3): `orgId.messaging.domain`."""

    org_id: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> "ServerName | None":
        """Return the parts of *text*; None where it is not a messaging host's name.

        DNS names compare without case. A root dot is dropped."""
        return _server_name(text) if len(text) <= 256 else None  # a DNS name has 253 characters

    @classmethod
    def _split(cls, text: str) -> "ServerName | None":
        org, _, rest = text.lower().removesuffix(".").partition(".")
        messaging, _, domain = rest.partition(".")
        if is_org_id(org) and messaging == "messaging" and is_domain(domain):
            return cls(org, domain)
        return None


# A broker names the same few hosts at every connection. The size bounds the memory that made-up names take.
_server_name = lru_cache(maxsize=1024)(ServerName._split)
