"""python -m functions.admin: the platform operator's own commands, for people and for scripts."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec import structs

from edge.api import read_key
from functions.admin import main
from shared.composition import build
from shared.config import Settings
from shared.errors import StoreUnavailable
from shared.org_repository import OrgRepository
from shared.refs import api_key_ref
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.jobs.check import Finding
from shared.usecases.servers.platform_default import PlatformDefault
from shared.x509.certificate import Certificate
from tests.support import certs
from tests.support.harness import Client


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty store of the embedded kind."""
    monkeypatch.setenv("TRUST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TRUST_DOMAIN", "example.com")
    return Settings.from_env()


def run(*words: str, code: int = 0, text: str | None = None) -> Result:
    done = CliRunner().invoke(main, words, input=text)
    assert done.exit_code == code, done.output
    return done


def as_json(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def key_of(made: Any, settings: Settings) -> Client:
    return Client(build(settings, queue_pause=3600), made["key"], made["token"])


def fingerprint_of_default(settings: Settings) -> str:
    app = build(settings, queue_pause=3600)
    try:
        record = PlatformDefault(app.context.repository).get()
    finally:
        app.close()
    assert record is not None
    return Certificate.from_der(record.leaf).fingerprint


def status(client: Client, path: str) -> int:
    try:
        return client.get(path).status
    finally:
        client.app.close()


def test_a_key_is_written_to_a_file_of_the_form_that_edges_read(settings: Settings, tmp_path: Path) -> None:
    """One line `key:token`, for the user alone. The token is not shown, and no file is replaced or left empty."""
    path = tmp_path / "edge.key"
    create = ("key", "create", "--platform", "--role", "edge", "--key-file", str(path))
    shown = run(*create).output
    key, _, token = read_key(path).partition(":")
    assert key in shown
    assert token not in shown
    assert path.stat().st_mode & 0o777 == 0o600
    assert status(key_of({"key": key, "token": token}, settings), "//edge/v1/hosts") == 200
    assert "cannot be created: File exists" in run(*create, code=2).output
    assert read_key(path) == f"{key}:{token}"
    refused = ("key", "create", "--platform", "--role", "viewer", "--key-file", str(tmp_path / "viewer.key"))
    run(*refused, code=1)
    assert not (tmp_path / "viewer.key").exists()


def test_an_org_and_its_first_key(settings: Settings) -> None:
    """The two commands of the README; the key works at once."""
    assert as_json("org", "create", "mtxpd0")["messagingHost"] == "mtxpd0.messaging.example.com"
    made = as_json("key", "create", "--org", "mtxpd0", "--role", "operator")
    assert set(made) == {"key", "token"}
    assert made["key"].startswith("a-mtxpd0-")
    assert status(key_of(made, settings), "/session") == 200


def test_mistakes_are_reported_in_a_sentence() -> None:
    assert "six characters" in run("org", "create", "Too-Long", code=1).output
    run("org", "create", "mtxpd0")
    assert "is here already" in run("org", "create", "mtxpd0", code=1).output
    assert "nobody" in run("key", "create", "--org", "nobody", "--role", "viewer", code=1).output
    assert "--platform" in run("key", "create", "--role", "viewer", code=2).output
    assert "broker or an edge" in run("key", "create", "--platform", "--role", "operator", code=1).output
    assert "Only a broker key" in run("key", "create", "--org", "mtxpd0", "--role", "edge", "--no-sni", code=1).output
    assert "Only an org's own" in run("key", "create", "--platform", "--role", "broker", "--no-sni", code=1).output


def test_suspended_means_refused_until_resumed(settings: Settings) -> None:
    run("org", "create", "mtxpd0")
    made = as_json("key", "create", "--org", "mtxpd0", "--role", "viewer")
    assert as_json("org", "suspend", "mtxpd0")["suspended"] is True
    assert status(key_of(made, settings), "/session") == 403
    assert as_json("org", "resume", "mtxpd0")["suspended"] is False
    assert status(key_of(made, settings), "/session") == 200


def test_a_revoked_key_is_refused_and_stays_listed(settings: Settings) -> None:
    run("org", "create", "mtxpd0")
    made = as_json("key", "create", "--org", "mtxpd0", "--role", "viewer")
    assert as_json("key", "revoke", made["key"])["revokedAt"]
    assert status(key_of(made, settings), "/session") == 401
    listed = as_json("key", "list", "--org", "mtxpd0")
    assert [view["key"] for view in listed] == [made["key"]]
    assert made["token"] not in json.dumps(listed)
    run("key", "revoke", "a-mtxpd0-0000000000", code=1)


def test_an_empty_list_of_keys_says_whose_keys_it_lists() -> None:
    """Without --org the list has the platform's keys only, and says how to list an organization's."""
    run("org", "create", "mtxpd0")
    run("key", "create", "--org", "mtxpd0", "--role", "viewer")
    assert run("key", "list").output == (
        "No platform key yet. `key list --org ORG_ID` lists the keys of an organization.\n"
    )
    run("key", "create", "--platform", "--role", "broker")
    assert run("key", "list").output.startswith("p-")
    run("org", "create", "other1")
    assert run("key", "list", "--org", "other1").output == "The organization other1 has no key yet.\n"
    assert "nobody" in run("key", "list", "--org", "nobody", code=1).output


def test_the_examples_of_the_help_are_lines_of_their_own() -> None:
    """So that each can be copied."""
    lines = [line.strip() for line in run("--help").output.splitlines()]
    assert ".venv/bin/python -m functions.admin org create mtxpd0" in lines
    assert ".venv/bin/python -m functions.admin key create --org mtxpd0 --role operator --json" in lines


def test_a_deleted_org_leaves_nothing_and_takes_nothing_of_another(settings: Settings) -> None:
    for org_id in ("mtxpd0", "other1"):
        run("org", "create", org_id)
        client = key_of(as_json("key", "create", "--org", org_id, "--role", "operator"), settings)
        client.post("/authentication/cacertificates", {"certificate": _ca_now()}).ok(201)
        client.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
        client.app.close()
    assert "Aborted" in run("org", "delete", "mtxpd0", code=1, text="n\n").output
    before = [line for line in run("export").stdout.splitlines() if "other1" in line]
    run("org", "delete", "mtxpd0", "--yes")
    after = run("export").stdout
    [tombstone] = [json.loads(line) for line in after.splitlines() if "mtxpd0" in line]
    assert (tombstone["partition"], tombstone["body"]["suspended"]) == ("org", True)
    assert [line for line in after.splitlines() if "other1" in line] == before
    assert [view["org"] for view in as_json("org", "list")] == ["other1"]
    [deleted] = as_json("org", "list", "--deleted")
    assert (deleted["org"], deleted["deletion"]) == ("mtxpd0", "complete")
    assert deleted["reusableFrom"] in run("org", "create", "mtxpd0", code=1).output
    assert as_json("org", "create", "mtxpd0", "--now")["org"] == "mtxpd0"


def export_of(settings: Settings, folder: Path) -> tuple[Path, Any]:
    """Export an organization with a CA, and delete the organization. Return the file, and the operator's key."""
    run("org", "create", "mtxpd0")
    made = as_json("key", "create", "--org", "mtxpd0", "--role", "operator")
    client = key_of(made, settings)
    client.post("/authentication/cacertificates", {"certificate": _ca_now()}).ok(201)
    client.app.close()
    file = folder / "export.jsonl"
    file.write_text(run("export").stdout)
    run("org", "delete", "mtxpd0", "--yes")
    return file, made


def test_export_and_import_bring_everything_back(settings: Settings, tmp_path: Path) -> None:
    """Private keys stay sealed on the way; importing twice changes nothing."""
    file, made = export_of(settings, tmp_path)
    imported = as_json("import", str(file), "--with-keys")
    assert imported["written"] > 0
    assert (imported["keysLeftOut"], imported["othersLeftOut"]) == (0, 0)
    assert as_json("import", str(file), "--with-keys")["written"] == 0
    client = key_of(made, settings)
    assert len(client.get("/authentication/cacertificates").ok()["results"]) == 1
    client.app.close()


def test_an_import_takes_keys_only_on_request(settings: Settings, tmp_path: Path) -> None:
    """An export lies in more places than a key may; the command says what it left out."""
    file, made = export_of(settings, tmp_path)
    assert "1 API keys were left out. --with-keys imports them." in run("import", str(file)).output
    assert as_json("key", "list", "--org", "mtxpd0") == []
    assert status(key_of(made, settings), "/session") == 401


def test_a_file_that_is_no_export_is_refused_in_a_sentence(settings: Settings, tmp_path: Path) -> None:
    file, _ = export_of(settings, tmp_path)
    text = file.read_text()
    lines = text.splitlines()
    for damaged, sentence in (
        ("no json\n", "has no seal"),
        ("", "has no seal"),
        ("\n".join(lines[1:-1]), "has no seal"),
        ("\n".join(lines[:-1]), "not complete"),
        ("\n".join([*lines[:2], *lines[3:]]), "was changed"),
        (text.replace("mtxpd0", "other1"), "was changed"),
        (text + lines[1] + "\n", "lines after its end"),
    ):
        file.write_text(damaged)
        refused = run("import", str(file), code=1).output
        assert sentence in refused
        assert len(refused.splitlines()) == 1
        assert as_json("org", "list") == []
    file.write_text(text.replace("\n", "\r\n"))
    assert as_json("import", str(file))["written"] > 0, "another system's line ends change nothing"


def test_an_export_without_seal_needs_the_operators_word(settings: Settings, tmp_path: Path) -> None:
    """As version 0.1.0 wrote, or from an installation with other master keys. API keys are never among it."""
    file, made = export_of(settings, tmp_path)
    file.write_text("\n".join(file.read_text().splitlines()[1:-1]))
    assert "cannot be used with --unsigned" in run("import", str(file), "--unsigned", "--with-keys", code=2).output
    assert "Create new keys." in run("import", str(file), "--unsigned").output
    assert [view["org"] for view in as_json("org", "list")] == ["mtxpd0"]
    assert status(key_of(made, settings), "/session") == 401


def test_an_import_elsewhere_says_that_the_master_key_is_missing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = export_of(settings, tmp_path)
    monkeypatch.setenv("TRUST_DATA", str(tmp_path / "elsewhere"))
    refused = run("import", str(file), code=1).output
    assert "The seal of this export does not open here" in refused
    assert "TRUST_KEYS" in refused
    assert as_json("org", "list") == []


def test_an_import_into_an_empty_store_takes_the_default_certificate(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices that trust the platform's certificate are presented this certificate after a move, too."""
    run("org", "create", "mtxpd0")
    default = fingerprint_of_default(settings)
    file = tmp_path / "export.jsonl"
    file.write_text(run("export").stdout)
    monkeypatch.setenv("TRUST_KEYS", f"local:{tmp_path}/data/keys")
    monkeypatch.setenv("TRUST_DATA", str(tmp_path / "elsewhere"))
    assert as_json("import", str(file))["kept"] == 0
    assert fingerprint_of_default(Settings.from_env()) == default


def test_an_import_of_one_organization_leaves_a_store_with_a_default_certificate(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("org", "create", "mtxpd0")
    file = tmp_path / "export.jsonl"
    file.write_text(run("export", "--org", "mtxpd0").stdout)
    monkeypatch.setenv("TRUST_KEYS", f"local:{tmp_path}/data/keys")
    monkeypatch.setenv("TRUST_DATA", str(tmp_path / "elsewhere"))
    assert as_json("import", str(file))["written"] > 0
    assert fingerprint_of_default(Settings.from_env())


def test_an_import_takes_one_organization_of_a_whole_export(settings: Settings, tmp_path: Path) -> None:
    for org_id in ("mtxpd0", "other1"):
        run("org", "create", org_id)
        as_json("key", "create", "--org", org_id, "--role", "broker")
    as_json("key", "create", "--platform", "--role", "edge")
    file = tmp_path / "export.jsonl"
    file.write_text(run("export").stdout)
    for org_id in ("mtxpd0", "other1"):
        run("org", "delete", org_id, "--yes")
    imported = as_json("import", str(file), "--org", "other1", "--with-keys")
    assert imported["othersLeftOut"] > 0
    assert [view["org"] for view in as_json("org", "list")] == ["other1"]
    assert len(as_json("key", "list", "--org", "other1")) == 1


def test_reseal_moves_every_key_to_a_new_master_key(settings: Settings) -> None:
    run("org", "create", "mtxpd0")
    client = key_of(as_json("key", "create", "--org", "mtxpd0", "--role", "operator"), settings)
    client.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
    client.app.close()
    assert as_json("reseal") == {"moved": 0, "current": 2}
    assert as_json("reseal", "--rotate") == {"moved": 2, "current": 0}
    assert as_json("reseal") == {"moved": 0, "current": 2}


def test_the_default_certificate_is_replaced_for_all(settings: Settings, tmp_path: Path) -> None:
    """It must name every org's host: *.messaging. and the platform domain."""
    run("org", "create", "mtxpd0")
    now = build(settings).context.clock()
    good = certs.server("*.messaging.example.com", not_before=now - certs.DAY, not_after=now + certs.YEAR)
    wrong = certs.server("*.example.org", not_before=now - certs.DAY, not_after=now + certs.YEAR)
    for name, text in (("good", good.pem), ("wrong", wrong.pem), ("key", good.key_pem)):
        (tmp_path / name).write_text(text)
    refused = run("default-cert", "set", str(tmp_path / "wrong"), "--key", str(tmp_path / "key"), code=1).output
    assert "*.messaging.example.com" in refused
    set_ = as_json("default-cert", "set", str(tmp_path / "good"), "--key", str(tmp_path / "key"))
    assert set_["warnings"] == ["self_signed"]
    client = key_of(as_json("key", "create", "--org", "mtxpd0", "--role", "viewer"), settings)
    default = client.get("/authentication/servercertificates/default").ok()
    assert default["fingerprintSha256"] == good.fingerprint
    assert default["active"] is True
    client.app.close()


def test_a_wrong_setting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_STORE", "nonsense")
    assert "TRUST_STORE" in run("org", "list", code=1).output


def _ca_now() -> str:
    return certs.ca("Root").pem


def test_a_sweep_publishes_hosts_that_a_crash_left_unpublished(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edges' feed gets the hosts that are missing from it. A second sweep changes nothing."""
    with monkeypatch.context() as crashing:
        crashing.setattr(HostFeed, "publish", lambda *_: None)
        run("org", "create", "mtxpd0")
    assert as_json("sweep") == {"mended": 0, "told": 1}
    assert "Nothing was left out" in run("sweep").stdout


def test_check_lists_what_is_unsafe_and_fails_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script sees the exit code: 1 where a finding is unsafe, 0 where only the behaviour changed."""
    monkeypatch.setattr("functions.admin.CHECKS", ())
    monkeypatch.setenv("TRUST_TOPIC_PREFIX", "{orgId}/{class}/{typeId}/{deviceId}/")  # nothing to say about topics
    assert run("check").output == "Nothing was found.\n"
    changed = Finding("gateways", "Gateways have topics of their own.", "Nothing.")
    unsafe = Finding("open", "The door is open.", "Close it.", is_unsafe=True)
    monkeypatch.setattr("functions.admin.CHECKS", (lambda context: iter([changed]),))
    assert run("check").output == "Gateways have topics of their own. Nothing.\n"
    monkeypatch.setattr("functions.admin.CHECKS", (lambda context: iter([changed, unsafe]),))
    assert run("check", code=1).output.splitlines()[1] == "UNSAFE: The door is open. Close it."
    assert json.loads(run("check", "--json", code=1).stdout)[1] == {
        "code": "open",
        "found": "The door is open.",
        "advice": "Close it.",
        "unsafe": True,
    }


def codes(code: int = 0) -> list[str]:
    return [finding["code"] for finding in json.loads(run("check", "--json", code=code).stdout)]


def test_check_names_keys_that_prove_names_on_every_listener(settings: Settings) -> None:
    """Keys of the version before named no listener. A key that is revoked or names a listener is no finding."""
    run("org", "create", "mtxpd0")
    prover = ("key", "create", "--org", "mtxpd0", "--role", "broker", "--proof", "broker")
    named = as_json(*prover, "--listener", "certificates")
    assert [view["listener"] for view in as_json("key", "list", "--org", "mtxpd0")] == ["certificates"]
    assert "names no listener" in run(*prover).stderr
    assert codes() == ["gateway_topics"]
    app = build(settings, queue_pause=3600)
    for attempt in app.context.repository.changing_existing(api_key_ref("mtxpd0", named["key"]), "key"):
        with attempt as key:
            attempt.write(structs.replace(key, listener=None))
    app.close()
    assert named["key"] in run("check", code=1).output
    run("key", "revoke", named["key"])
    assert codes() == ["gateway_topics"]


def test_only_a_key_that_proves_names_names_a_listener() -> None:
    run("org", "create", "mtxpd0")
    broker = ("key", "create", "--org", "mtxpd0", "--role", "broker")
    assert "proof broker" in run(*broker, "--listener", "x", code=1).output
    assert "1 to 64" in run(*broker, "--proof", "broker", "--listener", "a b", code=1).output


def test_check_names_deletions_that_are_not_complete_and_keys_of_deleted_orgs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sweep` completes the deletion."""
    run("org", "create", "mtxpd0")
    key = as_json("key", "create", "--platform", "--role", "edge", "--orgs", "mtxpd0")["key"]
    with monkeypatch.context() as broken:
        broken.setattr(OrgRepository, "delete_partition", _unavailable)
        run("org", "delete", "mtxpd0", "--yes", code=1)
    assert "is being deleted" in run("org", "create", "mtxpd0", code=1).output
    assert "is being deleted" in run("org", "list", "--deleted").output
    found = {finding["code"]: finding for finding in json.loads(run("check", "--json", code=1).stdout)}
    assert key in found["key_of_a_deleted_org"]["found"]
    assert "mtxpd0" in found["deletion_unfinished"]["found"]
    run("sweep")
    assert "deletion_unfinished" not in run("check", "--json").output
    assert "may be used again from" in run("org", "list", "--deleted").output
    run("key", "revoke", key)
    run("org", "create", "mtxpd0", "--now")
    assert "key_of_a_deleted_org" not in run("check", "--json").output


def _unavailable(*_: object) -> None:
    raise StoreUnavailable


def test_check_names_topics_that_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a gateway and a device, and by organizations where a key serves several."""
    assert codes() == ["gateway_topics"]
    monkeypatch.setenv("TRUST_TOPIC_PREFIX", "{orgId}/{typeId}/{deviceId}/")
    assert codes(1) == ["topics_of_two_classes"]
    monkeypatch.setenv("TRUST_TOPIC_PREFIX", "{class}/{typeId}/{deviceId}/")
    assert "{orgId}" in run("check", code=1).output, "the functions do not start, and the command says why"
    monkeypatch.setenv("TRUST_ONE_ORG_PER_BROKER", "true")
    assert codes() == []
    run("org", "create", "mtxpd0")
    run("key", "create", "--platform", "--role", "broker", "--orgs", "mtxpd0")
    assert codes() == []
    run("key", "create", "--platform", "--role", "broker")
    assert codes(1) == ["topics_of_two_organizations"]


def test_check_says_what_an_edge_on_this_machine_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade changed the default. A revoked key, and an edge that is allowed or comes over TLS, need nothing."""

    def found() -> bool:
        return "edge_plain" in codes()

    assert not found()
    run("org", "create", "mtxpd0")
    as_json("key", "create", "--org", "mtxpd0", "--role", "broker")
    assert not found()
    made = as_json("key", "create", "--org", "mtxpd0", "--role", "edge")
    assert found()
    assert "TRUST_EDGE_PLAIN=loopback" in run("check").output
    for name, value in (("TRUST_EDGE_PLAIN", "loopback"), ("TRUST_BEHIND_TLS", "true")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not found()
    as_json("key", "revoke", made["key"])
    assert not found()
    as_json("key", "create", "--platform", "--role", "edge")
    assert found()
