"""`make demo KEEP=1`: leave everything running after the story, with three broken devices to explain."""

import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from demo.device import Device, context
from demo.pki import OpensslPki
from demo.stack import Org

PAUSE: Final = 10.0  # seconds between two attempts of the broken devices


class Broken(NamedTuple):
    """A device that is refused.

    Args:
        what: what a person who looks after the device knows.
        cure: what makes the device pass.
    """

    client_id: str
    files: tuple[Path, Path]
    what: str
    cure: str


def break_devices(org: Org, pki: OpensslPki, folder: Path) -> list[Broken]:
    """Make certificates for three devices of *org* that are refused, each for another cause."""
    other = OpensslPki(folder / "second-factory", "Acme Second Factory CA")
    name = f"d:{org.id}:pump"
    expired = pki.device("d:pump:2", days=-1)
    return [
        Broken(f"{name}:1", other.device("d:pump:1"), "a device of the second factory", f"add the CA {other.ca}"),
        Broken(f"{name}:2", expired, "a device that worked until yesterday", "a new certificate"),
        Broken(f"{name}:03", pki.device("d:pump:3"), "a device that was configured by hand", f"the client ID {name}:3"),
    ]


def keep_running(
    orgs: list[tuple[Org, OpensslPki]], broken: list[Broken], port: int, say: Callable[[str], None]
) -> None:
    """Connect the broken devices again and again until the demo is stopped, and show where to look.

    Args:
        orgs: the first is the one of the broken devices.
        port: of the TLS edge.
    """
    org, pki = orgs[0]
    console = f"{org.functions.url}/console/"
    say(f"console   {console}")
    for each, _ in orgs:
        key, _, token = each.key.partition(":")
        say(f"{each.id}    API key {key}, token {token}")
    for device in broken:
        say(f"refused   {device.client_id}, {device.what}. Why? The cure: {device.cure}.")
    say("Press Ctrl+C to stop and remove everything.")
    if sys.stdout.isatty():  # a person started the demo
        webbrowser.open(console)
    while True:
        for device in broken:
            client = Device(port, device.client_id, context(org.host, device.files, trusted=pki.ca))
            client.connect()
            client.close()
        time.sleep(PAUSE)
