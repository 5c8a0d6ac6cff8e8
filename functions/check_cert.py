"""Check a device's certificate offline, with the rules of verifyClient: a command for device makers."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from functions.web.problem import page_of
from shared.config import base_url
from shared.errors import Rejected
from shared.validation.ca import ca_id, check_ca
from shared.validation.facts import Anchor, OrgFacts, Scope
from shared.validation.names import messaging_host
from shared.validation.policy import Decision, Policy
from shared.validation.presented import ConnectingClient, Presented
from shared.validation.verdict import Verdict, judge
from shared.x509.certificate_files import read_certificates
from shared.x509.moment import Moment

# click joins the lines of a paragraph, unless the paragraph begins with \b.
_HELP = """Check a device's certificate offline, with the rules of verifyClient.

\b
    .venv/bin/python -m functions.check_cert device.pem --ca ca.pem --org mtxpd0

The exit code is 0 where the device may connect, and 1 where it is refused.
"""

_PAGES: Final = Path(__file__).resolve().parents[1] / "console" / "errors"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MARKS = {"passed": "✓", "failed": "✕", "not reached": "–"}


@click.command(help=_HELP)
@click.argument("device", type=_FILE)
@click.option(
    "--ca",
    "cas",
    type=_FILE,
    multiple=True,
    required=True,
    help="A CA certificate that the organization has registered. May be repeated.",
)
@click.option("--org", "org_id", required=True, help="The organization's id.")
@click.option("--client-id", help="The client ID the device connects with.")
@click.option("--chain", type=_FILE, help="The certificates that the device sends after its own.")
@click.option(
    "--type-certificates",
    is_flag=True,
    help="The organization accepts type certificates (d:type:) for every device of the type.",
)
@click.option("--domain", default="internetofthings.ibmcloud.com", show_default=True, help="The platform domain.")
def main(
    device: Path,
    cas: tuple[Path, ...],
    org_id: str,
    client_id: str | None,
    chain: Path | None,
    type_certificates: bool,
    domain: str,
) -> None:
    """Print the ten steps of the decision. Exit with 0 where the device may connect, with 1 where it is refused."""
    now = datetime.now(UTC)
    try:
        anchors = _anchors(cas, now)
    except Rejected as error:
        click.echo(f"✕ The CA file would not be accepted: {error}", err=True)
        click.echo(f"  More: {_page_of(error.code)}", err=True)
        sys.exit(1)
    client = ConnectingClient(
        server_name=messaging_host(org_id, domain),
        client_id=client_id,
        certificate=device.read_bytes(),
        chain=chain.read_bytes() if chain else b"",
    )
    presented = Presented.read(client)
    facts = OrgFacts(
        org_id,
        suspended=False,
        requires_sni=True,
        custom_domains=(),
        type_certificates=type_certificates,
        policy=Policy(),
        anchors=anchors,
    )
    verdict = judge(presented, Scope(org_id), facts, platform_domain=domain, moment=Moment(now))
    _print(verdict)
    sys.exit(0 if verdict.decision is Decision.ALLOW else 1)


def _anchors(cas: tuple[Path, ...], now: datetime) -> list[Anchor]:
    certs = [cert for path in cas for cert in read_certificates(path.read_bytes())]
    for cert in certs:
        check_ca(cert, at=now)
    return [Anchor(ca_id(cert), cert, active=True) for cert in certs]


def _print(verdict: Verdict) -> None:
    for step in verdict.steps:
        detail = f": {step.found}" if step.found else ""
        click.echo(f"{_MARKS[step.status]} {step.number:>2} {step.name}{detail}")
    mark = "✓" if verdict.decision is Decision.ALLOW else "✕"
    click.echo(f"{mark} {verdict.reason} {verdict.mend}".rstrip())
    if verdict.decision is Decision.DENY:
        click.echo(f"  More: {_page_of(verdict.code)}")


def _page_of(code: str) -> str:
    """Return the address of the page about *code*: at the service where TRUST_URL is set, else in this checkout."""
    return page_of(code) if base_url() else (_PAGES / f"{code}.html").as_uri()


if __name__ == "__main__":
    main()
