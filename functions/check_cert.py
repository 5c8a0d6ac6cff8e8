"""The device maker's own check, offline, with the service's own engine:

python -m functions.check_cert device.pem --ca ca.pem --org mtxpd0
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from shared.errors import Rejected
from shared.validation.ca import ca_id, check_ca
from shared.validation.names import messaging_host
from shared.validation.policy import Decision, Policy
from shared.validation.presented import Presented
from shared.validation.verdict import Anchor, OrgFacts, Scope, Verdict, judge
from shared.x509.certificate_files import read_certificates

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MARKS = {"passed": "✓", "failed": "✕", "not reached": "–"}


@click.command(help=__doc__)
@click.argument("device", type=_FILE)
@click.option("--ca", "cas", type=_FILE, multiple=True, required=True, help="A CA the organization has registered.")
@click.option("--org", "org_id", required=True, help="The organization's id.")
@click.option("--client-id", help="The client ID the device connects with.")
@click.option("--chain", type=_FILE, help="What the device sends after its certificate.")
@click.option("--type-certificates", is_flag=True, help="The organization lets d:type: speak for every device.")
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
    """Exit code 0: would be let in; 1: would be refused."""
    now = datetime.now(UTC)
    try:
        anchors = _anchors(cas, now)
    except Rejected as error:
        click.echo(f"✕ The CA file would not be accepted: {error}", err=True)
        sys.exit(1)
    presented = Presented.of(
        server_name=messaging_host(org_id, domain),
        client_id=client_id,
        certificate=device.read_bytes(),
        chain=chain.read_bytes() if chain else b"",
    )
    facts = OrgFacts(
        org_id,
        suspended=False,
        requires_sni=True,
        custom_domains=(),
        type_certificates=type_certificates,
        policy=Policy(),
        anchors=anchors,
    )
    verdict = judge(presented, Scope(org_id), facts, platform_domain=domain, at=now)
    _tell(verdict)
    sys.exit(0 if verdict.decision is Decision.ALLOW else 1)


def _anchors(cas: tuple[Path, ...], now: datetime) -> list[Anchor]:
    certs = [cert for path in cas for cert in read_certificates(path.read_bytes())]
    for cert in certs:
        check_ca(cert, at=now)
    return [Anchor(ca_id(cert), cert, active=True) for cert in certs]


def _tell(verdict: Verdict) -> None:
    for step in verdict.steps:
        found = f": {step.found}" if step.found else ""
        click.echo(f"{_MARKS[step.status]} {step.number:>2} {step.name}{found}")
    mark = "✓" if verdict.decision is Decision.ALLOW else "✕"
    click.echo(f"{mark} {verdict.reason} {verdict.mend}".rstrip())


if __name__ == "__main__":
    main()
