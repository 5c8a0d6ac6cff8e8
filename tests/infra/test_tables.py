"""The deployments agree with the tables: each function with its size, trigger, rights and routes."""

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from functions.hosts import gcp, target
from functions.registry import CONSOLE, Trigger, every_route
from infra import generate
from infra.table import BY_NAME, FUNCTIONS, KEY_OPENERS, Right, http_routes, on_api_gateway
from tests.infra import machine

pytestmark = pytest.mark.timeout(400)


def test_every_function_that_an_endpoint_names_is_deployed_and_no_other() -> None:
    """An endpoint belongs to a function of the registry, and each HTTP function but the console has an endpoint."""
    assert {function.name for function in FUNCTIONS if function.trigger is Trigger.HTTP} == {CONSOLE} | {
        route.endpoint.function for route in every_route()
    }


def test_verify_client_can_neither_change_nor_open_anything() -> None:
    """verifyClient reads documents and writes to the queue; it cannot write a document or use the master key."""
    assert BY_NAME["verifyClient"].rights == {Right.READ, Right.SEND}


def test_only_a_renewal_and_the_edges_feed_open_a_private_key() -> None:
    """Two functions may decrypt: one signs a new request with an existing key, the other passes keys to TLS edges."""
    assert {function.name for function in FUNCTIONS if Right.OPEN in function.rights} == {
        "manageCertificates",
        "edgeFeed",
    }


def test_the_modules_that_open_keys_are_the_listed_ones() -> None:
    """A module that calls `sealer.open` and is not listed would get a function without the right to do so."""
    paths = [*(machine.ROOT / "shared").rglob("*.py"), *(machine.ROOT / "functions").rglob("*.py")]
    openers = [path for path in paths if "sealer.open(" in path.read_text(encoding="utf-8")]
    assert {".".join(path.relative_to(machine.ROOT).with_suffix("").parts) for path in openers} == KEY_OPENERS


def test_the_right_to_open_keys_follows_from_the_imports() -> None:
    """A function has it exactly if it can import a module that opens keys; edgeFeed alone can export a key."""
    for function in FUNCTIONS:
        assert (Right.OPEN in function.rights) == bool(KEY_OPENERS & function.modules)
    assert [function.name for function in FUNCTIONS if "shared.usecases.edges.serve" in function.modules] == [
        "edgeFeed"
    ]


def test_the_console_has_no_rights() -> None:
    """Its files are public; it reads no document, opens no key and sends nothing."""
    assert BY_NAME[CONSOLE].rights == frozenset()


def test_the_rest_of_a_path_is_written_in_api_gateways_syntax() -> None:
    """A greedy path variable ("Create routes for HTTP APIs in API Gateway"); a single segment is unchanged."""
    assert on_api_gateway("/console/{*file}") == "/console/{file+}"
    assert on_api_gateway("/authentication/cacertificates/{id}/pem") == "/authentication/cacertificates/{id}/pem"


@pytest.mark.parametrize(
    "function",
    [function for function in FUNCTIONS if function.trigger is Trigger.HTTP],
    ids=lambda function: function.name,
)
def test_every_function_has_an_entry_point_in_both_clouds(function: Any) -> None:
    """`functions/hosts/aws.verify_client` and FUNCTION_TARGET=verifyClient exist."""
    module, _, name = function.lambda_handler.rpartition(".")
    assert callable(getattr(importlib.import_module(module.replace("/", ".")), name))
    assert gcp.target(function.name).__name__ == function.name


def test_the_generated_files_are_current() -> None:
    """`python -m infra.generate` would change nothing."""
    for path, text in generate.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run make infra"


def test_serverless_and_terraform_grant_the_same() -> None:
    """The actions of a right on AWS are written twice, in two languages, and are equal."""
    text = (machine.ROOT / "infra/terraform/aws/functions.tf").read_text(encoding="utf-8")
    lists = {
        name: set(re.findall(r'"([^"]+)"', actions))
        for name, actions in re.findall(r"^  (\w+ing) += \[(.*)\]$", text, re.M)
    }
    grants = text.partition("grants = {")[2]
    for right, grant in generate.GRANTS.items():
        match = re.search(rf"^    {right.value} +=.*?actions += (.*?)(?:, resources|\n)", grants, re.M | re.S)
        assert match is not None, right
        granted = set(re.findall(r'"([^"]+)"', match[1])).union(
            *(lists[name] for name in re.findall(r"local\.(\w+)", match[1]))
        )
        assert granted == set(grant["Action"]), right


# ---------------------------------------------------------------------------------------------- Serverless Framework


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The CloudFormation template that `serverless package` makes from serverless.yml."""
    folder = tmp_path_factory.mktemp("serverless")
    shutil.copyfile(machine.ROOT / "serverless.yml", folder / "serverless.yml")
    shutil.copytree(machine.ROOT / "infra/serverless", folder / "infra/serverless")
    (folder / "dist/aws").mkdir(parents=True)
    for function in FUNCTIONS:
        (folder / f"dist/aws/{function.name}.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    command = ["node", str(machine.npm_folder() / "osls/bin/serverless.js"), "package"]
    environment = {
        **machine.clean_environment(),
        "TRUST_DOMAIN": "example.com",
        "TRUST_UPLOAD_BUCKET": "acme-uploads",
        "AWS_REGION": "us-east-1",
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    path = folder / ".serverless/cloudformation-template-update-stack.json"
    made: dict[str, Any] = json.loads(path.read_text())
    return {"path": path, **made}


def of_type(template: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        name: resource["Properties"] for name, resource in template["Resources"].items() if resource["Type"] == kind
    }


@pytest.mark.slow
def test_the_serverless_template_is_valid(template: dict[str, Any]) -> None:
    """CloudFormation's linter finds no error. (Its only warning, W3005, is a redundant DependsOn of the framework.)"""
    import cfnlint

    findings = cfnlint.api.lint_file(Path(template["path"]))
    assert [str(finding) for finding in findings if finding.rule.id != "W3005"] == []


@pytest.mark.slow
def test_serverless_deploys_every_function_with_its_size_role_and_package(template: dict[str, Any]) -> None:
    """Handler, memory, timeout, a role of its own, and only the table's rights."""
    functions, roles = of_type(template, "AWS::Lambda::Function"), of_type(template, "AWS::IAM::Role")
    assert len(functions) == len(roles) == len(FUNCTIONS)
    for function in FUNCTIONS:
        stem = function.name[0].upper() + function.name[1:]
        made = functions[f"{stem}LambdaFunction"]
        assert (made["Handler"], made["MemorySize"], made["Timeout"]) == (
            function.lambda_handler,
            function.memory,
            function.timeout,
        )
        assert made["Role"] == {"Fn::GetAtt": [f"{stem}Role", "Arn"]}
        assert made["Code"]["S3Key"].endswith(f"/{function.name}.zip")
        (policy,) = roles[f"{stem}Role"]["Policies"]
        actions = {action for statement in policy["PolicyDocument"]["Statement"] for action in statement["Action"]}
        expected = {action for right in function.rights for action in generate.GRANTS.get(right, {}).get("Action", ())}
        extra = {"sqs:SendMessage"} if function.trigger in (Trigger.OBJECT, Trigger.SCHEDULE) else set()
        assert actions == expected | extra | {"logs:CreateLogStream", "logs:PutLogEvents"}


@pytest.mark.slow
def test_serverless_routes_are_the_routes_tables(template: dict[str, Any]) -> None:
    """Each method and path leads to its function; any other address to health, which answers a problem document."""
    led = {}
    for route in of_type(template, "AWS::ApiGatewayV2::Route").values():
        integration = route["Target"]["Fn::Join"][1][1]["Ref"]
        led[route["RouteKey"]] = integration.removeprefix("HttpApiIntegration")
    expected = {f"{method} {on_api_gateway(path)}": name[0].upper() + name[1:] for name, method, path in http_routes()}
    assert led == {**expected, "$default": "Health"}


@pytest.mark.slow
def test_serverless_wires_uploads_schedule_and_queue(template: dict[str, Any]) -> None:
    """The bucket invokes onUpload, the schedule expiryReport, the queue recordSightings; failed events are kept."""
    (uploads,) = [
        bucket for bucket in of_type(template, "AWS::S3::Bucket").values() if bucket.get("BucketName") == "acme-uploads"
    ]
    (wired,) = uploads["NotificationConfiguration"]["LambdaConfigurations"]
    assert wired["Function"] == {"Fn::GetAtt": ["OnUploadLambdaFunction", "Arn"]}
    assert all(uploads["PublicAccessBlockConfiguration"].values())
    (rule,) = of_type(template, "AWS::Events::Rule").values()
    assert rule["Targets"][0]["Arn"] == {"Fn::GetAtt": ["ExpiryReportLambdaFunction", "Arn"]}
    (source,) = of_type(template, "AWS::Lambda::EventSourceMapping").values()
    assert source["FunctionName"] == {"Fn::GetAtt": ["RecordSightingsLambdaFunction", "Arn"]}
    kept = of_type(template, "AWS::Lambda::EventInvokeConfig").values()
    assert [config["DestinationConfig"]["OnFailure"]["Destination"] for config in kept] == [
        {"Fn::GetAtt": ["Failed", "Arn"]}
    ] * 2


@pytest.mark.slow
def test_the_table_that_serverless_makes_is_protected(template: dict[str, Any]) -> None:
    """Point-in-time recovery and expiry; table and master key are retained when the stack is deleted."""
    (table,) = of_type(template, "AWS::DynamoDB::Table").values()
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}
    assert [template["Resources"][name]["DeletionPolicy"] for name in ("Documents", "MasterKey")] == ["Retain"] * 2


# ------------------------------------------------------------------------------------------------------------ Knative


def knative(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((machine.ROOT / "infra/knative" / name).read_text(encoding="utf-8")))


def test_knative_has_every_function_with_memory_identity_and_trigger() -> None:
    """There is one service per function. Services for events are not public, and take CloudEvents."""
    documents = knative("functions.yaml")
    services = {document["metadata"]["name"]: document for document in documents if document["kind"] == "Service"}
    accounts = {document["metadata"]["name"] for document in documents if document["kind"] == "ServiceAccount"}
    assert set(services) == accounts == {function.slug for function in FUNCTIONS}
    for function in FUNCTIONS:
        service = services[function.slug]
        spec = service["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert environment["FUNCTION_TARGET"] == function.name
        assert container["resources"]["limits"]["memory"] == f"{function.memory}Mi"
        assert spec["serviceAccountName"] == function.slug
        assert spec["timeoutSeconds"] == function.timeout
        private = service["metadata"]["labels"].get("networking.knative.dev/visibility") == "cluster-local"
        assert private == (function.trigger is not Trigger.HTTP)
        assert (environment.get("FUNCTION_SIGNATURE_TYPE") == "cloudevent") == private
    (schedule,) = [document for document in documents if document["kind"] == "PingSource"]
    assert schedule["spec"]["sink"]["ref"]["name"] == "expiry-report"


def test_knative_has_a_service_that_answers_every_route() -> None:
    """That service gives one base URL without a router that knows the routes."""
    (account, service) = knative("service.yaml")
    (container,) = service["spec"]["template"]["spec"]["containers"]
    assert account["kind"] == "ServiceAccount"
    assert {"name": "FUNCTION_TARGET", "value": target.SERVICE} in container["env"]
