"""The deployments hold what the tables say: each function with its size, trigger, rights and routes."""

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from functions.hosts import gcp
from functions.registry import CONSOLE, Trigger, every_route
from infra import generate
from infra.table import BY_NAME, FUNCTIONS, KEY_OPENERS, Right, http_routes, on_api_gateway
from tests.infra import machine

pytestmark = pytest.mark.timeout(400)


def test_every_function_that_an_endpoint_names_is_deployed_and_no_other() -> None:
    """An endpoint belongs to a function of the registry, and each HTTP function has an endpoint; each has rights."""
    assert {one.name for one in FUNCTIONS if one.trigger is Trigger.HTTP} == {CONSOLE} | {
        route.endpoint.function for route in every_route()
    }
    assert all(one.rights is not None for one in FUNCTIONS)


def test_what_devices_wait_for_cannot_change_or_open_anything() -> None:
    """verifyClient reads, and tells the queue: it never needs a right to write a document or to use the master key."""
    assert BY_NAME["verifyClient"].rights == {Right.READ, Right.SEND}


def test_only_a_renewal_and_the_edges_feed_open_a_private_key() -> None:
    """Two functions alone have the right to decrypt: one signs a new request with a stored key, the other exports keys
    to the TLS edges. Both rights follow from what the functions can import."""
    assert {one.name for one in FUNCTIONS if Right.OPEN in one.rights} == {"manageCertificates", "edgeFeed"}
    assert [one.name for one in FUNCTIONS if "shared.usecases.edges.serve" in one.modules] == ["edgeFeed"]
    for one in FUNCTIONS:
        assert (Right.OPEN in one.rights) == bool(KEY_OPENERS & one.modules)


def test_the_console_may_do_nothing_but_answer() -> None:
    """Its files are for anybody who asks: it reads no document, opens no key and sends nothing."""
    assert BY_NAME[CONSOLE].rights == frozenset()


def test_all_that_follows_is_written_as_api_gateway_writes_it() -> None:
    """A greedy path variable ("Create routes for HTTP APIs in API Gateway"); one segment stays as it is."""
    assert on_api_gateway("/console/{*file}") == "/console/{file+}"
    assert on_api_gateway("/authentication/cacertificates/{id}/pem") == "/authentication/cacertificates/{id}/pem"


@pytest.mark.parametrize(
    "function", [one for one in FUNCTIONS if one.trigger is Trigger.HTTP], ids=lambda one: one.name
)
def test_every_function_has_an_entry_point_in_both_clouds(function: Any) -> None:
    """`functions/aws.verify_client` and FUNCTION_TARGET=verifyClient exist."""
    module, _, name = function.lambda_handler.rpartition(".")
    assert callable(getattr(importlib.import_module(module.replace("/", ".")), name))
    assert gcp.target(function.name).__name__ == function.name


def test_the_files_are_what_the_tables_make_of_them() -> None:
    """`python -m infra.generate` would change nothing."""
    for path, text in generate.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run make infra"


def test_serverless_and_terraform_grant_the_same() -> None:
    """What a right is on AWS is said twice, in two languages, and the same."""
    text = (machine.ROOT / "infra/terraform/aws/functions.tf").read_text(encoding="utf-8")
    lists = {
        name: set(re.findall(r'"([^"]+)"', found))
        for name, found in re.findall(r"^  (\w+ing) += \[(.*)\]$", text, re.M)
    }
    grants = text.partition("grants = {")[2]
    for right, grant in generate.GRANTS.items():
        found = re.search(rf"^    {right.value} +=.*?actions += (.*?)(?:, resources|\n)", grants, re.M | re.S)
        assert found is not None, right
        said = set(re.findall(r'"([^"]+)"', found[1])).union(
            *(lists[name] for name in re.findall(r"local\.(\w+)", found[1]))
        )
        assert said == set(grant["Action"]), right


# ---------------------------------------------------------------------------------------------- Serverless Framework


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The CloudFormation template that `serverless package` makes of serverless.yml."""
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
    return {name: one["Properties"] for name, one in template["Resources"].items() if one["Type"] == kind}


def test_the_serverless_template_is_valid(template: dict[str, Any]) -> None:
    """CloudFormation's own linter finds no error. (Its one warning, W3005, is the framework's redundant DependsOn.)"""
    import cfnlint

    from_file = cfnlint.api.lint_file(Path(template["path"]))
    assert [str(one) for one in from_file if one.rule.id != "W3005"] == []


def test_serverless_deploys_every_function_with_its_size_role_and_package(template: dict[str, Any]) -> None:
    """Handler, memory, timeout, a role of its own, and no rights but the table's."""
    functions, roles = of_type(template, "AWS::Lambda::Function"), of_type(template, "AWS::IAM::Role")
    assert len(functions) == len(roles) == len(FUNCTIONS)
    for one in FUNCTIONS:
        stem = one.name[0].upper() + one.name[1:]
        made = functions[f"{stem}LambdaFunction"]
        assert (made["Handler"], made["MemorySize"], made["Timeout"]) == (one.lambda_handler, one.memory, one.timeout)
        assert made["Role"] == {"Fn::GetAtt": [f"{stem}Role", "Arn"]}
        assert made["Code"]["S3Key"].endswith(f"/{one.name}.zip")
        (policy,) = roles[f"{stem}Role"]["Policies"]
        actions = {action for statement in policy["PolicyDocument"]["Statement"] for action in statement["Action"]}
        expected = {action for right in one.rights for action in generate.GRANTS.get(right, {}).get("Action", ())}
        extra = {"sqs:SendMessage"} if one.trigger in (Trigger.OBJECT, Trigger.SCHEDULE) else set()
        assert actions == expected | extra | {"logs:CreateLogStream", "logs:PutLogEvents"}


def test_serverless_routes_are_the_routes_tables(template: dict[str, Any]) -> None:
    """Each method and path leads to its function; any other address to health, which answers a problem document."""
    led = {}
    for route in of_type(template, "AWS::ApiGatewayV2::Route").values():
        integration = route["Target"]["Fn::Join"][1][1]["Ref"]
        led[route["RouteKey"]] = integration.removeprefix("HttpApiIntegration")
    expected = {f"{method} {on_api_gateway(path)}": name[0].upper() + name[1:] for name, method, path in http_routes()}
    assert led == {**expected, "$default": "Health"}


def test_serverless_wires_uploads_schedule_and_queue(template: dict[str, Any]) -> None:
    """onUpload by the bucket, expiryReport by the clock, recordSightings by the queue; what fails for good is kept."""
    (uploads,) = [
        one for one in of_type(template, "AWS::S3::Bucket").values() if one.get("BucketName") == "acme-uploads"
    ]
    (wired,) = uploads["NotificationConfiguration"]["LambdaConfigurations"]
    assert wired["Function"] == {"Fn::GetAtt": ["OnUploadLambdaFunction", "Arn"]}
    assert all(uploads["PublicAccessBlockConfiguration"].values())
    (rule,) = of_type(template, "AWS::Events::Rule").values()
    assert rule["Targets"][0]["Arn"] == {"Fn::GetAtt": ["ExpiryReportLambdaFunction", "Arn"]}
    (source,) = of_type(template, "AWS::Lambda::EventSourceMapping").values()
    assert source["FunctionName"] == {"Fn::GetAtt": ["RecordSightingsLambdaFunction", "Arn"]}
    kept = of_type(template, "AWS::Lambda::EventInvokeConfig").values()
    assert [one["DestinationConfig"]["OnFailure"]["Destination"] for one in kept] == [
        {"Fn::GetAtt": ["Failed", "Arn"]}
    ] * 2


def test_the_table_that_serverless_makes_is_protected(template: dict[str, Any]) -> None:
    """Point-in-time recovery, expiry, and it stays when the stack goes; so does the master key."""
    (table,) = of_type(template, "AWS::DynamoDB::Table").values()
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}
    assert [template["Resources"][name]["DeletionPolicy"] for name in ("Documents", "MasterKey")] == ["Retain"] * 2


# ------------------------------------------------------------------------------------------------------------ Knative


def knative(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((machine.ROOT / "infra/knative" / name).read_text(encoding="utf-8")))


def test_knative_has_every_function_with_memory_identity_and_trigger() -> None:
    """One service a function; those that the platform calls are not on a public router, and take CloudEvents."""
    documents = knative("functions.yaml")
    services = {one["metadata"]["name"]: one for one in documents if one["kind"] == "Service"}
    accounts = {one["metadata"]["name"] for one in documents if one["kind"] == "ServiceAccount"}
    assert set(services) == accounts == {one.slug for one in FUNCTIONS}
    for function in FUNCTIONS:
        service = services[function.slug]
        spec = service["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        environment = {one["name"]: one["value"] for one in container["env"]}
        assert environment["FUNCTION_TARGET"] == function.name
        assert container["resources"]["limits"]["memory"] == f"{function.memory}Mi"
        assert spec["serviceAccountName"] == function.slug
        assert spec["timeoutSeconds"] == function.timeout
        private = service["metadata"]["labels"].get("networking.knative.dev/visibility") == "cluster-local"
        assert private == (function.trigger is not Trigger.HTTP)
        assert (environment.get("FUNCTION_SIGNATURE_TYPE") == "cloudevent") == private
    (schedule,) = [one for one in documents if one["kind"] == "PingSource"]
    assert schedule["spec"]["sink"]["ref"]["name"] == "expiry-report"


def test_knative_has_one_service_that_answers_everything() -> None:
    """One base URL where there is no router that knows the routes."""
    (account, service) = knative("service.yaml")
    (container,) = service["spec"]["template"]["spec"]["containers"]
    assert account["kind"] == "ServiceAccount"
    assert {"name": "FUNCTION_TARGET", "value": gcp.SERVICE} in container["env"]
