"""The platform operator's own commands: organizations, keys, the default certificate, export and import.

    python -m functions.admin org create mtxpd0
    python -m functions.admin key create --org mtxpd0 --role operator --json

Acts on the configured store (README, Settings).
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from shared import log
from shared.composition import App, build
from shared.config import Settings, WrongSetting
from shared.errors import TrustError
from shared.ports import SealBroken
from shared.records import ApiKey, Org, Proof, Role
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import sweep_withdrawals
from shared.usecases.jobs import transfer
from shared.usecases.jobs.maintenance import sweep_org
from shared.usecases.jobs.reseal import reseal as reseal_usecase
from shared.usecases.orgs import api_keys
from shared.usecases.orgs import organizations as orgs
from shared.usecases.orgs.default_certificate import ensure_default, set_default
from shared.validation.names import messaging_host

as_json = click.option("--json", "as_json", is_flag=True, help="For scripts: one JSON object or list.")


def _fail(error: Exception) -> NoReturn:
    click.echo(str(error), err=True)
    sys.exit(1)


@contextmanager
def _app() -> Iterator[App]:
    """The configured app; a refusal becomes a sentence on standard error and exit code 1."""
    try:
        settings = Settings.from_env()
    except WrongSetting as error:
        _fail(error)
    log.configure("WARNING")
    app = build(settings)
    try:
        ensure_default(app.context, app.sealer)
        yield app
    except (TrustError, SealBroken) as error:
        _fail(error)
    finally:
        app.close()


def _tell(as_json: bool, data: Any, text: str) -> None:
    click.echo(json.dumps(data) if as_json else text)


@click.group(help=__doc__)
def main() -> None:
    pass


# -------------------------------------------------------------------------------------------- organizations


@main.group(help="Organizations.")
def org() -> None:
    pass


@org.command("create", help="A new organization. ORG_ID: six characters of a-z and 0-9.")
@click.argument("org_id")
@as_json
def org_create(org_id: str, as_json: bool) -> None:
    with _app() as app:
        _show(app, orgs.create_org(app.context, org_id), as_json)


@org.command("list", help="Every organization.")
@as_json
def org_list(as_json: bool) -> None:
    with _app() as app:
        found = [_org(app, one) for one in orgs.list_orgs(app.context)]
        _tell(as_json, found, "\n".join(_line(one) for one in found) or "No organization yet.")


@org.command("suspend", help="Refuse an organization's keys and devices until it is resumed.")
@click.argument("org_id")
@as_json
def org_suspend(org_id: str, as_json: bool) -> None:
    with _app() as app:
        _show(app, orgs.set_suspended(app.context, org_id, True), as_json)


@org.command("resume", help="Let a suspended organization go on.")
@click.argument("org_id")
@as_json
def org_resume(org_id: str, as_json: bool) -> None:
    with _app() as app:
        _show(app, orgs.set_suspended(app.context, org_id, False), as_json)


@org.command("delete", help="Remove an organization and everything of its own.")
@click.argument("org_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
def org_delete(org_id: str, yes: bool) -> None:
    with _app() as app:
        orgs.get_org(app.context, org_id)
        if not yes:
            click.confirm(
                f"Remove {org_id} with its certificates, keys and activity? This cannot be undone", abort=True
            )
        orgs.delete_org(app.context, org_id)
        click.echo(f"{org_id} is gone.")


def _org(app: App, one: Org) -> dict[str, Any]:
    return {
        "org": one.org_id,
        "suspended": one.suspended,
        "createdAt": one.created_at.isoformat(),
        "messagingHost": messaging_host(one.org_id, app.settings.domain),
    }


def _line(one: dict[str, Any]) -> str:
    return f"{one['org']}  {one['messagingHost']}{'  suspended' if one['suspended'] else ''}"


def _show(app: App, one: Org, as_json: bool) -> None:
    data = _org(app, one)
    _tell(as_json, data, _line(data))


# ------------------------------------------------------------------------------------------------- API keys


@main.group(help="API keys.")
def key() -> None:
    pass


@key.command("create", help="A new API key; its token is shown this once.")
@click.option("--org", "org_id", help="The organization it is for.")
@click.option("--platform", is_flag=True, help="For brokers and edges that serve many organizations.")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option("--orgs", "some", help="Of a platform key: only these organizations, with commas between.")
@click.option("--no-sni", is_flag=True, help="Of an organization's broker that cannot pass the server name.")
@click.option("--proof", type=click.Choice([proof.value for proof in Proof]), default="chain")
@as_json
def key_create(
    org_id: str | None, platform: bool, role: str, some: str | None, no_sni: bool, proof: str, as_json: bool
) -> None:
    if platform == (org_id is not None):
        raise click.UsageError("Say either --org ORG_ID or --platform.")
    with _app() as app:
        made, token = api_keys.create_key(
            app.context,
            org_id=org_id,
            role=Role(role),
            orgs=[one for one in (some or "").split(",") if one],
            no_sni=no_sni,
            proof=Proof(proof),
        )
        _tell(as_json, {"key": made.key, "token": token}, f"key   {made.key}\ntoken {token}  (shown this once)")


@key.command("list", help="The keys of an organization, or of the platform; never a token.")
@click.option("--org", "org_id")
@as_json
def key_list(org_id: str | None, as_json: bool) -> None:
    with _app() as app:
        found = [_key(one) for one in api_keys.list_keys(app.context, org_id)]
        lines = [f"{one['key']}  {one['role']}{'  revoked' if one['revokedAt'] else ''}" for one in found]
        _tell(as_json, found, "\n".join(lines) or "No key yet.")


@key.command("revoke", help="Refuse a key from now on.")
@click.argument("name")
@as_json
def key_revoke(name: str, as_json: bool) -> None:
    with _app() as app:
        one = _key(api_keys.revoke_key(app.context, name))
        _tell(as_json, one, f"{one['key']} is revoked.")


def _key(one: ApiKey) -> dict[str, Any]:
    return {
        "key": one.key,
        "role": one.role.value,
        "orgs": list(one.orgs),
        "noSni": one.no_sni,
        "proof": one.proof.value,
        "createdAt": one.created_at.isoformat(),
        "revokedAt": one.revoked_at.isoformat() if one.revoked_at else None,
    }


# -------------------------------------------------------------------------------------- default certificate


@main.group("default-cert", help="The platform's default server certificate, one for all organizations.")
def default_cert() -> None:
    pass


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@default_cert.command("set", help="Replace it, for all organizations at once.")
@click.argument("certificate", type=_FILE)
@click.option("--key", "key_file", type=_FILE, help="Its private key, where the certificate's file has none.")
@click.option("--chain", type=_FILE)
@click.option("--passphrase-file", type=_FILE, help="First line: the passphrase of an encrypted key.")
@as_json
def default_cert_set(
    certificate: Path, key_file: Path | None, chain: Path | None, passphrase_file: Path | None, as_json: bool
) -> None:
    with _app() as app:
        record, warnings = set_default(
            app.context,
            app.sealer,
            certificate.read_bytes(),
            chain=chain.read_bytes() if chain else None,
            private_key=key_file.read_bytes() if key_file else None,
            passphrase=passphrase_file.read_text().splitlines()[0] if passphrase_file else None,
        )
        lines = ["The default certificate is replaced.", *(one.message for one in warnings)]
        data = {"version": record.changed.version, "warnings": [one.code for one in warnings]}
        _tell(as_json, data, "\n".join(lines))


# ------------------------------------------------------------------------------------- export, import, reseal


@main.command("export", help="Every document as JSON, one a line, to standard output. Private keys stay sealed.")
@click.option("--org", "org_id", help="Of this organization only.")
def export(org_id: str | None) -> None:
    with _app() as app:
        for line in transfer.export_lines(app.context, org_id):
            click.echo(json.dumps(line))


@main.command("import", help="Put back what export gave. What is there already stays. Needs the same master key.")
@click.argument("file", type=click.File())
@as_json
def import_(file: Iterator[str], as_json: bool) -> None:
    with _app() as app:
        try:
            written, kept = transfer.import_lines(app.context, map(json.loads, file))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _fail(click.ClickException(f"This is no file that export wrote ({type(error).__name__})."))
        _tell(as_json, {"written": written, "kept": kept}, f"{written} written, {kept} were there already.")


@main.command("reseal", help="Seal every private key under the newest master key.")
@click.option("--rotate", is_flag=True, help="Make a new master key first.")
@as_json
def reseal(rotate: bool, as_json: bool) -> None:
    with _app() as app:
        if rotate:
            app.sealer.rotate()
        moved, current = reseal_usecase(app.context, app.sealer)
        _tell(as_json, {"moved": moved, "current": current}, f"{moved} sealed anew, {current} were current already.")


@main.command(
    "sweep",
    help="Mend what a crash left behind, tell the TLS edges what it left untold, and forget what none needs any more.",
)
@as_json
def sweep(as_json: bool) -> None:
    with _app() as app:
        mended = sum(sweep_org(app.context, org.org_id, at=app.context.clock()) for org in orgs.list_orgs(app.context))
        late = HostFeed(app.context).sweep()
        sweep_withdrawals(app.context)
        done = f"{mended} leftovers were mended, {late} organizations were told of late."
        _tell(as_json, {"mended": mended, "told": late}, done if mended or late else "Nothing was left out.")


if __name__ == "__main__":
    main()
