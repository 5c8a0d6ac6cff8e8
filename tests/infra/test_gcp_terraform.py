"""Deploy to Google Cloud, as far as it can be checked without Google.

The files are valid by the provider's real schema, and agree with the tables. They were not applied to Google;
docs/deploy-gcp.md says so too.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from functions.registry import Trigger
from infra.table import BY_NAME, FUNCTIONS, Right, http_routes
from tests.infra import machine
from tests.infra.google import schema
from tests.support.missing import skip_or_fail

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).parent / "google"
FILES = machine.ROOT / "infra/terraform/gcp"
WRITER = "serviceAccount:factory@acme.iam.gserviceaccount.com"


def provider_python() -> Path:
    """Return a Python with the dependencies of the stand-in provider; it is made once."""
    pins = HERE / "requirements.txt"
    key = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = machine.ROOT / ".build" / f"google-provider-{key}"
    with machine.hold_lock("google-provider"):
        if not (folder / "ready").exists():
            venv.create(folder, with_pip=True, clear=True)
            command = [str(folder / "bin/python"), "-m", "pip", "install", "-qq", "--require-hashes", "-r", str(pins)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                skip_or_fail(f"tests/infra/google/requirements.txt cannot be installed: {done.stderr.strip()[-300:]}")
            (folder / "ready").touch()
    return folder / "bin/python"


@dataclass
class Applied:
    """The files, "applied" to a memory."""

    folder: Path
    environment: dict[str, str]

    def terraform(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [machine.terraform(), *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    @cached_property
    def resources(self) -> dict[str, dict[str, Any]]:
        """The values of each resource, by address."""
        state = json.loads(self.terraform("show", "-json").stdout)
        return {resource["address"]: resource["values"] for resource in state["values"]["root_module"]["resources"]}

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the resources of one type and name: key -> values."""
        matches = {re.match(rf'{kind}\["(.*)"\]$', address): values for address, values in self.resources.items()}
        return {match[1]: values for match, values in matches.items() if match}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Applied:
    """The files in a folder of their own, with the stand-in provider beside them."""
    machine.terraform()
    folder = tmp_path_factory.mktemp("gcp")
    package = machine.npm_folder() / "@cdktf/provider-google"
    (folder / "schema.json").write_text(json.dumps(schema.read_schema(package, schema.find_types(FILES))))
    shutil.copytree(FILES, folder / "infra/terraform/gcp", ignore=shutil.ignore_patterns(".terraform*"))
    shutil.copyfile(machine.ROOT / "infra/functions.json", folder / "infra/functions.json")
    (folder / "providers").mkdir()
    provider = folder / "providers/terraform-provider-google"
    provider.write_text(f'#!/bin/sh\nexec "{provider_python()}" "{HERE / "provider.py"}" "$@"\n')
    provider.chmod(0o755)
    overrides = f'dev_overrides {{\n    "hashicorp/google" = "{folder / "providers"}"\n  }}'
    (folder / "google.rc").write_text(f"provider_installation {{\n  {overrides}\n}}\n")
    environment = machine.terraform_environment(folder)
    environment |= {
        "TF_CLI_CONFIG_FILE": str(folder / "google.rc"),
        "TRUST_TEST_GOOGLE_SCHEMA": str(folder / "schema.json"),
        "TF_VAR_project": "acme",
        "TF_VAR_region": "europe-west3",
        "TF_VAR_image": "europe-west3-docker.pkg.dev/acme/trust/mqtt-trust@sha256:" + "0" * 64,
        "TF_VAR_api_host": "trust.example.com",
        "TF_VAR_domain": "example.com",
        "TF_VAR_webhook": "https://example.com/hook",
        "TF_VAR_alarm_email": "operator@example.com",
        "TF_VAR_upload_writers": json.dumps({"mtxpd0": [WRITER]}),
    }
    return Applied(folder / "infra/terraform/gcp", environment)


@pytest.fixture(scope="module")
def applied(empty: Applied) -> Applied:
    done = empty.terraform("apply", "-auto-approve", "-no-color", "-parallelism=40")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return empty


def test_every_terraform_file_is_formatted() -> None:
    """`terraform fmt` would change no file of any cloud."""
    command = [machine.terraform(), "fmt", "-check", "-recursive", "-diff", str(machine.ROOT / "infra/terraform")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_files_are_valid_by_googles_schema(empty: Applied) -> None:
    """Each resource, argument, block and type exists, and no required argument is missing."""
    done = empty.terraform("validate", "-json")
    report = json.loads(done.stdout)
    assert report["valid"], json.dumps(report["diagnostics"], indent=1)[:4000]


@pytest.mark.parametrize(
    ("file", "right", "wrong", "summary"),
    [
        ("functions.tf", "service_account  ", "service_acount  ", "Unsupported argument"),
        (
            "events.tf",
            "  schedule  = var.report_at\n",
            "  schedule  = [var.report_at]\n",
            "Incorrect attribute value type",
        ),
        ("keys.tf", "  key_ring                   = google_kms_key_ring.ring.id\n", "", "Missing required argument"),
    ],
)
def test_a_mistake_would_be_detected(
    empty: Applied, tmp_path: Path, file: str, right: str, wrong: str, summary: str
) -> None:
    """A misspelt, a wrong and a missing argument are each detected."""
    shutil.copytree(empty.folder.parents[1], tmp_path / "infra")
    broken = Applied(tmp_path / "infra/terraform/gcp", empty.environment)
    text = (broken.folder / file).read_text()
    assert right in text
    (broken.folder / file).write_text(text.replace(right, wrong, 1))
    report = json.loads(broken.terraform("validate", "-json").stdout)
    assert summary in {entry["summary"] for entry in report["diagnostics"] if entry["severity"] == "error"}


def test_a_second_apply_changes_nothing(applied: Applied) -> None:
    """No argument is written in a way that differs from its applied value."""
    done = applied.terraform("plan", "-detailed-exitcode", "-no-color", "-parallelism=40")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_every_function_is_a_service_with_its_size_and_an_identity_of_its_own(applied: Applied) -> None:
    """Memory, timeout and service account are the table's; only the load balancer or Eventarc can reach a service."""
    services = applied.of("google_cloud_run_v2_service.function")
    accounts = applied.of("google_service_account.function")
    assert sorted(services) == sorted(accounts) == sorted(BY_NAME)
    assert len({account["account_id"] for account in accounts.values()}) == len(FUNCTIONS)
    assert all(6 <= len(account["account_id"]) <= 30 for account in accounts.values())  # IAM's limits
    for function in FUNCTIONS:
        service = services[function.name]
        (template,) = service["template"]
        (container,) = template["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert container["resources"][0]["limits"]["memory"] == f"{max(512, function.memory)}Mi"
        assert template["timeout"] == f"{function.timeout}s"
        assert environment["FUNCTION_TARGET"] == function.name
        is_http = function.trigger is Trigger.HTTP
        assert environment["FUNCTION_SIGNATURE_TYPE"] == ("http" if is_http else "cloudevent")
        reach = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER" if is_http else "INGRESS_TRAFFIC_INTERNAL_ONLY"
        assert service["ingress"] == reach


def test_one_base_url_leads_each_route_to_its_function(applied: Applied) -> None:
    """The load balancer's map is the table of routes: method and path; paths without a parameter come first."""
    url_map = applied.resources["google_compute_url_map.api"]
    (matcher,) = url_map["path_matcher"]
    backends = {backend["id"]: name for name, backend in applied.of("google_compute_backend_service.function").items()}
    led, first_template, last_literal = [], 10**9, 0
    for rule in matcher["route_rules"]:
        (match,) = rule["match_rules"]
        (header,) = match["header_matches"]
        assert header["header_name"] == ":method"
        template = match["path_template_match"]
        path = match["full_path_match"] or re.sub(r"\{(\w+)=\*(\*?)\}", r"{\2\1}", template)
        led.append((backends[rule["service"]], header["exact_match"], path))
        if template:
            first_template = min(first_template, rule["priority"])
        else:
            last_literal = max(last_literal, rule["priority"])
    assert sorted(led) == sorted(http_routes())
    assert last_literal < first_template
    assert backends[url_map["default_service"]] == "health"
    assert len({rule["priority"] for rule in matcher["route_rules"]}) == len(led)


def test_every_event_function_has_its_trigger_and_one_invoker(applied: Applied) -> None:
    """Uploads, connection events and the daily report; only the events' own identity may invoke them."""
    triggers = applied.of("google_eventarc_trigger.event")
    invokers = applied.of("google_cloud_run_v2_service_iam_member.events")
    public = applied.of("google_cloud_run_v2_service_iam_member.public")
    expected = {function.name for function in FUNCTIONS if function.trigger is not Trigger.HTTP}
    assert set(triggers) == set(invokers) == expected
    assert set(public) == set(BY_NAME) - expected
    kinds = {
        name: {criterion["attribute"]: criterion["value"] for criterion in trigger["matching_criteria"]}
        for name, trigger in triggers.items()
    }
    assert kinds["onUpload"] == {"type": "google.cloud.storage.object.v1.finalized", "bucket": "acme-trust-uploads"}
    assert {kinds[name]["type"] for name in ("recordSightings", "expiryReport")} == {
        "google.cloud.pubsub.topic.v1.messagePublished"
    }


def test_each_identity_has_the_rights_of_the_table_and_no_other(applied: Applied) -> None:
    """Each right (read, change, seal, open, queue, uploads) is granted to exactly the functions that need it."""
    granted = {
        Right.READ: "google_project_iam_member.read",
        Right.CHANGE: "google_project_iam_member.change",
        Right.SEAL: "google_kms_crypto_key_iam_member.seal",
        Right.OPEN: "google_kms_crypto_key_iam_member.open",
        Right.SEND: "google_pubsub_topic_iam_member.tell",
        Right.UPLOADS: "google_storage_bucket_iam_member.uploads",
        Right.WEBHOOK: "google_secret_manager_secret_iam_member.webhook",
    }
    for right, address in granted.items():
        assert set(applied.of(address)) == {function.name for function in FUNCTIONS if right in function.rights}, right
    for address in ("google_project_iam_member.read", "google_project_iam_member.change"):
        for binding in applied.of(address).values():
            assert binding["condition"][0]["expression"].endswith('/databases/trust-documents"')


def test_the_store_the_key_and_the_uploads_are_protected(applied: Applied) -> None:
    """Point-in-time recovery and expiry; a rotating key; private uploads, kept for a day and deleted for good.

    Each organization writes below its own prefixes only.
    """
    database = applied.resources["google_firestore_database.documents"]
    assert database["type"] == "FIRESTORE_NATIVE"
    assert database["point_in_time_recovery_enablement"] == "POINT_IN_TIME_RECOVERY_ENABLED"
    assert database["delete_protection_state"] == "DELETE_PROTECTION_ENABLED"
    expires = applied.resources["google_firestore_field.expires"]
    assert (expires["collection"], expires["field"], len(expires["ttl_config"])) == ("documents", "expires", 1)
    assert applied.resources["google_kms_crypto_key.master"]["rotation_period"] == "7776000s"
    bucket = applied.resources["google_storage_bucket.uploads"]
    assert bucket["public_access_prevention"] == "enforced"
    assert bucket["soft_delete_policy"][0]["retention_duration_seconds"] == 0
    assert bucket["lifecycle_rule"][0]["condition"][0]["age"] == 1
    (writer,) = applied.of("google_storage_bucket_iam_member.writer").values()
    assert writer["role"] == "roles/storage.objectCreator"
    allowed = re.findall(r'objects/([^"]+)"', writer["condition"][0]["expression"])
    assert allowed == ["mtxpd0/ca/", "mtxpd0/server/", "mtxpd0/csr/"]
