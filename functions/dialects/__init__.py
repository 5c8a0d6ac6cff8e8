"""verifyClient in each broker's own words: one module a broker, loaded where its path is asked."""

import importlib
from functools import cache
from typing import TYPE_CHECKING, Final

from functions.routes import PREFIX

if TYPE_CHECKING:
    from functions.dialects.dialect import Dialect

_MODULES: Final = {
    "emqx": "dialects.emqx:EMQX",
    "rabbitmq": "dialects.rabbitmq:RABBITMQ",
    "vernemq": "dialects.vernemq:VERNEMQ",
    "mosquitto": "dialects.mosquitto:MOSQUITTO",
    "envoy": "dialects.envoy:ENVOY",
    "nginx": "dialects.nginx:NGINX",
    "aws-iot": "dialects.aws_iot:AWS_IOT",
    "": "verify_client:NATIVE",
}


def spoken_at(path: str) -> "Dialect | None":
    """The dialect that is spoken at *path*, also where there is no such route: a broker reads an answer in its own
    words, or it may read a refusal as none."""
    path = path.removeprefix(PREFIX)
    if path.removesuffix("/") == "/authorization/verifyclient":
        return _load("")
    if path != "/verifyClient" and not path.startswith("/verifyClient/"):
        return None
    name = path.removeprefix("/verifyClient").strip("/").partition("/")[0]
    return _load(name) if name in _MODULES else None


@cache
def _load(name: str) -> "Dialect":
    module, _, attribute = _MODULES[name].partition(":")
    found: Dialect = getattr(importlib.import_module(f"functions.{module}"), attribute)
    return found
