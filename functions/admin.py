"""The platform operator's commands: organizations, keys, the default certificate, export and import."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Final, NoReturn, TextIO

import click

from shared import log
from shared.composition import App, build
from shared.config import Settings, WrongSetting
from shared.errors import TrustError
from shared.ports import SealBroken
from shared.records import ApiKey, Org, Proof, Role
from shared.text import format_time
from shared.usecases.callers import label_key
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import sweep_withdrawals
from shared.usecases.jobs import transfer
from shared.usecases.jobs.check import CHECKS, Finding, check_installation
from shared.usecases.jobs.export_file import ExportRefused
from shared.usecases.jobs.maintenance import sweep_org
from shared.usecases.jobs.reseal import reseal as reseal_usecase
from shared.usecases.jobs.settings_checks import checks_of
from shared.usecases.orgs import api_keys, deletion
from shared.usecases.orgs import organizations as orgs
from shared.usecases.orgs.default_certificate import ensure_default, set_default
from shared.usecases.orgs.edges import warn_of_silent_edges
from shared.validation.names import messaging_host
from shared.validation.verdict_by_name import NO_LISTENER

# click joins the lines of a paragraph, unless the paragraph begins with \b.
_HELP = """The platform operator's commands: organizations, keys, the default certificate, export and import.

\b
    .venv/bin/python -m functions.admin org create mtxpd0
    .venv/bin/python -m functions.admin key create --org mtxpd0 --role operator --json

The commands act on the store that the settings name (docs/settings.md).
"""

_SPOOL_BYTES: Final = 16 * 1024 * 1024  # of an import; a larger file is copied to the disk

as_json = click.option("--json", "as_json", is_flag=True, help="For scripts: one JSON object or list.")


def _fail(error: Exception) -> NoReturn:
    click.echo(str(error), err=True)
    sys.exit(1)


@contextmanager
def _app(*, with_default: bool = True) -> Iterator[App]:
    """Yield the configured app. A refusal becomes a sentence on standard error and exit code 1.

    Args:
        with_default: whether a default certificate is made before the block, if there is none.
    """
    try:
        settings = Settings.from_env()
    except WrongSetting as error:
        _fail(error)
    log.configure("WARNING")
    app = build(settings)
    try:
        if with_default:
            ensure_default(app.context, app.sealer)
        yield app
    except (TrustError, SealBroken, ExportRefused) as error:
        _fail(error)
    finally:
        app.close()


def _print(as_json: bool, data: Any, text: str) -> None:
    click.echo(json.dumps(data) if as_json else text)


@click.group(help=_HELP)
def main() -> None:
    """Run one command."""


# -------------------------------------------------------------------------------------------- organizations


@main.group(help="Organizations.")
def org() -> None:
    """Group the commands for organizations."""


@org.command("create", help="Create an organization. ORG_ID: six characters of a-z and 0-9.")
@click.argument("org_id")
@click.option("--now", is_flag=True, help="Also where an organization of that id was deleted a short time ago.")
@as_json
def org_create(org_id: str, now: bool, as_json: bool) -> None:
    """Create an organization."""
    with _app() as app:
        _print_org(app, orgs.create_org(app.context, org_id, now=now), as_json)


@org.command("list", help="List every organization.")
@click.option("--deleted", is_flag=True, help="List the deleted organizations, and when their ids may be used again.")
@as_json
def org_list(deleted: bool, as_json: bool) -> None:
    """List every organization, or every deleted organization."""
    with _app() as app:
        if deleted:
            tombstones = [_tombstone_view(app, record) for record in orgs.list_deleted_orgs(app.context)]
            _print(as_json, tombstones, "\n".join(map(_tombstone_line, tombstones)) or "No organization was deleted.")
            return
        views = [_org_view(app, record) for record in orgs.list_orgs(app.context)]
        _print(as_json, views, "\n".join(_org_line(view) for view in views) or "No organization yet.")


@org.command("suspend", help="Refuse an organization's keys and devices until it is resumed.")
@click.argument("org_id")
@as_json
def org_suspend(org_id: str, as_json: bool) -> None:
    """Suspend an organization."""
    with _app() as app:
        _print_org(app, orgs.set_suspended(app.context, org_id, True), as_json)


@org.command("resume", help="Resume a suspended organization.")
@click.argument("org_id")
@as_json
def org_resume(org_id: str, as_json: bool) -> None:
    """Resume a suspended organization."""
    with _app() as app:
        _print_org(app, orgs.set_suspended(app.context, org_id, False), as_json)


@org.command("delete", help="Delete an organization with everything that belongs to it.")
@click.argument("org_id")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def org_delete(org_id: str, yes: bool) -> None:
    """Delete an organization, after a confirmation."""
    with _app() as app:
        is_deleted = any(record.org_id == org_id for record in orgs.list_deleted_orgs(app.context))
        if not is_deleted:  # else the deletion was cut short, and is only completed here
            orgs.get_org(app.context, org_id)
        if not yes and not is_deleted:
            click.confirm(
                f"Remove {org_id} with its certificates, keys and activity? This cannot be undone", abort=True
            )
        view = _tombstone_view(app, deletion.delete_org(app.context, org_id))
        click.echo(f"{org_id} is gone. Its id may be used again from {view['reusableFrom']} on.")


def _org_view(app: App, record: Org) -> dict[str, Any]:
    return {
        "org": record.org_id,
        "suspended": record.suspended,
        "createdAt": record.created_at.isoformat(),
        "messagingHost": messaging_host(record.org_id, app.settings.domain),
    }


def _tombstone_view(app: App, record: Org) -> dict[str, Any]:
    until = deletion.quarantine_end(app.context, record)
    return {
        "org": record.org_id,
        "deletion": "in progress" if record.is_deleting else "complete",
        "reusableFrom": None if until is None else format_time(until),
    }


def _tombstone_line(view: dict[str, Any]) -> str:
    if view["reusableFrom"] is None:
        return f"{view['org']}  is being deleted; `sweep` completes the deletion"
    return f"{view['org']}  may be used again from {view['reusableFrom']} on"


def _org_line(view: dict[str, Any]) -> str:
    return f"{view['org']}  {view['messagingHost']}{'  suspended' if view['suspended'] else ''}"


def _print_org(app: App, record: Org, as_json: bool) -> None:
    view = _org_view(app, record)
    _print(as_json, view, _org_line(view))


# ------------------------------------------------------------------------------------------------- API keys


@main.group(help="API keys.")
def key() -> None:
    """Group the commands for API keys."""


@contextmanager
def _new_file(path: Path | None) -> Iterator[TextIO | None]:
    """Yield a new file of mode 0600, or None without a path. A block that fails leaves no file.

    Raises: click.UsageError.
    """
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be created: {error.strerror}.") from error
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            yield file
    except BaseException:
        path.unlink()
        raise


@key.command("create", help="Create an API key. Its token is shown only once.")
@click.option("--org", "org_id", help="The key's organization.")
@click.option("--platform", is_flag=True, help="For brokers and edges that serve many organizations.")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option("--orgs", "org_ids", help="For a platform key: only these organizations, separated by commas.")
@click.option("--no-sni", is_flag=True, help="For an organization's broker that cannot pass the server name.")
@click.option(
    "--proof",
    type=click.Choice([proof.value for proof in Proof]),
    default="chain",
    show_default=True,
    help="What proves a device's identity: its certificate chain, or the broker's own check of it.",
)
@click.option("--listener", help="With --proof broker: only names that come from this listener of the broker.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="Write the line key:token to this new file (mode 0600), as edges read it, and do not show the token.",
)
@as_json
def key_create(
    org_id: str | None,
    platform: bool,
    role: str,
    org_ids: str | None,
    no_sni: bool,
    proof: str,
    listener: str | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Create an API key, and print its token or write it to a file."""
    if platform == (org_id is not None):
        raise click.UsageError("Give either --org ORG_ID or --platform.")
    with _new_file(key_file) as file, _app() as app:
        api_key, token = api_keys.create_key(
            app.context,
            org_id=org_id,
            role=Role(role),
            orgs=[name for name in (org_ids or "").split(",") if name],
            no_sni=no_sni,
            proof=Proof(proof),
            listener=listener or NO_LISTENER,
        )
        if api_key.listener == NO_LISTENER:
            click.echo("This key names no listener, so names from VerneMQ and mosquitto are not accepted.", err=True)
        data, text = {"key": api_key.key}, f"key   {api_key.key}\n"
        if file is None:
            data["token"], text = token, f"{text}token {token}  (shown only once)"
        else:
            file.write(f"{api_key.key}:{token}\n")
            text = f"{text}The token is in {key_file}."
        _print(as_json, data, text)


@key.command("list", help="List the API keys of the platform, or of one organization. Tokens are never shown.")
@click.option("--org", "org_id", help="List this organization's keys. Without it: the platform's.")
@as_json
def key_list(org_id: str | None, as_json: bool) -> None:
    """List the API keys of an organization or of the platform."""
    with _app() as app:
        if org_id is None:
            empty = "No platform key yet. `key list --org ORG_ID` lists the keys of an organization."
        else:
            empty = f"The organization {orgs.get_org(app.context, org_id).org_id} has no key yet."
        views = [_key_view(api_key) for api_key in api_keys.list_keys(app.context, org_id)]
        lines = [_key_line(view) for view in views]
        _print(as_json, views, "\n".join(lines) or empty)


@key.command("revoke", help="Refuse a key from now on.")
@click.argument("name")
@as_json
def key_revoke(name: str, as_json: bool) -> None:
    """Revoke an API key."""
    with _app() as app:
        view = _key_view(api_keys.revoke_key(app.context, name))
        _print(as_json, view, f"{view['key']} is revoked.")


def _key_line(view: Mapping[str, Any]) -> str:
    label = f"  shown to organizations as {view['label']}" if view["label"] != view["key"] else ""
    return f"{view['key']}  {view['role']}{'  revoked' if view['revokedAt'] else ''}{label}"


def _key_view(api_key: ApiKey) -> dict[str, Any]:
    return {
        "key": api_key.key,
        "label": label_key(api_key.key),
        "role": api_key.role.value,
        "orgs": list(api_key.orgs),
        "noSni": api_key.no_sni,
        "proof": api_key.proof.value,
        "listener": api_key.listener or None,
        "createdAt": api_key.created_at.isoformat(),
        "revokedAt": api_key.revoked_at.isoformat() if api_key.revoked_at else None,
    }


# -------------------------------------------------------------------------------------- default certificate


@main.group("default-cert", help="The platform's default server certificate, one for all organizations.")
def default_cert() -> None:
    """Group the commands for the default certificate."""


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@default_cert.command("set", help="Replace the default certificate, for all organizations at once.")
@click.argument("certificate", type=_FILE)
@click.option("--key", "key_file", type=_FILE, help="The certificate's private key, unless CERTIFICATE contains it.")
@click.option("--chain", type=_FILE, help="The certificates between the certificate and its root.")
@click.option("--passphrase-file", type=_FILE, help="A file whose first line is the passphrase of an encrypted key.")
@as_json
def default_cert_set(
    certificate: Path, key_file: Path | None, chain: Path | None, passphrase_file: Path | None, as_json: bool
) -> None:
    """Replace the default certificate."""
    with _app() as app:
        record, warnings = set_default(
            app.context,
            app.sealer,
            certificate.read_bytes(),
            chain=chain.read_bytes() if chain else None,
            private_key=key_file.read_bytes() if key_file else None,
            passphrase=passphrase_file.read_text().splitlines()[0] if passphrase_file else None,
        )
        lines = ["The default certificate is replaced.", *(warning.message for warning in warnings)]
        data = {"version": record.changed.version, "warnings": [warning.code for warning in warnings]}
        _print(as_json, data, "\n".join(lines))


# ------------------------------------------------------------------------------------- export, import, reseal


@main.command(
    "export",
    help="Print every document as a line of JSON. Private keys stay sealed, and a seal under the master key shows any "
    "later change of the lines.",
)
@click.option("--org", "org_id", help="Only this organization's documents.")
def export(org_id: str | None) -> None:
    """Print every document as a line of JSON."""
    with _app() as app:
        for line in transfer.export_lines(app.context, app.sealer, org_id):
            click.echo(line)


@main.command(
    "import",
    help="Import the lines of an export. The whole file is verified first. Existing documents stay as they are. Needs "
    "the master key of the export.",
)
@click.argument("file", type=click.File("rb"))
@click.option("--org", "org_id", help="Only this organization's documents.")
@click.option("--with-keys", is_flag=True, help="The API keys as well.")
@click.option("--unsigned", is_flag=True, help="Accept a file without a valid seal, as 0.1.0 wrote. Takes no API keys.")
@as_json
def import_(file: BinaryIO, org_id: str | None, with_keys: bool, unsigned: bool, as_json: bool) -> None:
    """Import the lines of an export."""
    if unsigned and with_keys:
        raise click.UsageError("--with-keys needs a file with a seal, so it cannot be used with --unsigned.")
    # What was verified is what is imported. A default certificate of this store would keep that of the file out.
    with _app(with_default=False) as app, SpooledTemporaryFile(_SPOOL_BYTES) as copy:
        copyfileobj(file, copy)

        def read() -> Iterator[bytes]:
            copy.seek(0)
            return (line.rstrip(b"\r\n") for line in copy)

        done = transfer.import_lines(
            app.context, app.sealer, read, org_id=org_id, with_keys=with_keys, is_signed=not unsigned
        )
        ensure_default(app.context, app.sealer)
        data = {"written": done.written, "kept": done.kept, "keysLeftOut": done.keys, "othersLeftOut": done.others}
        _print(as_json, data, _imported_text(done, unsigned))


def _imported_text(done: transfer.Imported, unsigned: bool) -> str:
    sentences = [f"{done.written} written, {done.kept} were there already."]
    if done.keys:
        advice = "Create new keys." if unsigned else "--with-keys imports them."
        sentences.append(f"{done.keys} API keys were left out. {advice}")
    if done.others:
        sentences.append(f"{done.others} documents that belong to other organizations or the platform were left out.")
    return " ".join(sentences)


@main.command("reseal", help="Seal every private key under the newest master key.")
@click.option("--rotate", is_flag=True, help="Create a new master key first.")
@as_json
def reseal(rotate: bool, as_json: bool) -> None:
    """Seal every private key under the newest master key."""
    with _app() as app:
        if rotate:
            app.sealer.rotate()
        moved, current = reseal_usecase(app.context, app.sealer)
        _print(as_json, {"moved": moved, "current": current}, f"{moved} sealed anew, {current} were current already.")


@main.command(
    "sweep",
    help="Repair what a crash left behind, publish to the TLS edges what it left unpublished, and remove what is no "
    "longer needed.",
)
@as_json
def sweep(as_json: bool) -> None:
    """Repair what a crash left behind."""
    with _app() as app:
        at = app.context.clock()
        repaired = deletion.sweep_deleted_orgs(app.context)
        repaired += sum(sweep_org(app.context, record, at=at) for record in orgs.list_orgs(app.context))
        published = HostFeed(app.context).sweep()
        sweep_withdrawals(app.context)
        warn_of_silent_edges(app.context)
        text = f"{repaired} leftovers were repaired, the hosts of {published} organizations were published."
        data = {"mended": repaired, "told": published}
        _print(as_json, data, text if repaired or published else "Nothing was left out.")


@main.command("check", help="List what is unsafe in this installation, and what an upgrade changed. Changes nothing.")
@as_json
def check(as_json: bool) -> None:
    """List the findings; exit with 1 if one of them is unsafe."""
    with _app() as app:
        findings = check_installation(app.context, (*CHECKS, *checks_of(app.settings)))
    views = [_finding_view(finding) for finding in findings]
    lines = [f"{'UNSAFE: ' if finding.is_unsafe else ''}{finding.found} {finding.advice}" for finding in findings]
    _print(as_json, views, "\n".join(lines) or "Nothing was found.")
    if any(finding.is_unsafe for finding in findings):
        sys.exit(1)


def _finding_view(finding: Finding) -> dict[str, Any]:
    return {"code": finding.code, "found": finding.found, "advice": finding.advice, "unsafe": finding.is_unsafe}


if __name__ == "__main__":
    main()
