"""Deploy to AWS, as far as one machine can: Terraform applies everything to moto, an emulator of AWS.

The packaged functions then run in an empty environment, on the table, key, queue and bucket that Terraform made.
"""

import contextlib
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from functions.registry import every_route
from infra import package
from infra.table import BY_NAME, FUNCTIONS, http_routes, on_api_gateway
from tests.infra import lambdas, machine
from tests.support import certs
from tests.support.missing import skip_or_fail

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REGION = "us-east-1"
ORG = "mtxpd0"
WRITER = "arn:aws:iam::123456789012:role/factory"
OPTIONS = ("-no-color", "-parallelism=40")


@dataclass
class AwsDeployment:
    """The result of `terraform apply`."""

    folder: Path
    environment: dict[str, str]
    packages: Path
    applied: str

    def terraform(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **{f"TF_VAR_{name}": value for name, value in variables.items()}}
        command = [machine.terraform(), *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)

    @cached_property
    def outputs(self) -> dict[str, Any]:
        done = self.terraform("output", "-json")
        assert done.returncode == 0, done.stderr
        return {name: output["value"] for name, output in json.loads(done.stdout).items()}

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            verify=False,
        )

    @property
    def credentials(self) -> dict[str, str]:
        """The credentials that Lambda adds to a function's environment, beside its settings."""
        names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, **{name: self.environment[name] for name in names}}

    def admin(self, *arguments: str) -> Any:
        """Run the platform operator's command on this deployment, as docs/deploy-aws.md says."""
        environment = {**self.credentials, **self.outputs["settings"], "PATH": os.environ["PATH"]}
        command = [sys.executable, "-m", "functions.admin", *arguments, "--json"]
        return machine.json_of(command, cwd=machine.ROOT, env=environment)

    def key(self, role: str) -> tuple[str, str]:
        made = self.admin("key", "create", "--org", ORG, "--role", role)
        return made["key"], made["token"]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsDeployment]:
    """Everything in infra/terraform/aws, applied to an empty moto, and destroyed at the end."""
    machine.terraform()
    folder = tmp_path_factory.mktemp("aws")
    packages = folder / "packages"
    for function in FUNCTIONS:
        package.build(function, packages, python=machine.PYTHON, arch=machine.arch())
    shutil.copytree(machine.ROOT / "infra/terraform/aws", folder / "infra/terraform/aws")
    shutil.copyfile(machine.ROOT / "infra/functions.json", folder / "infra/functions.json")
    port = machine.free_port()
    url = f"http://127.0.0.1:{port}"
    environment = machine.terraform_environment(
        folder,
        AWS_ENDPOINT_URL=url,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        TF_VAR_region=REGION,
        TF_VAR_domain="example.com",
        TF_VAR_local="true",
        TF_VAR_protect="false",
        TF_VAR_packages=str(packages),
        TF_VAR_python=machine.PYTHON,
        TF_VAR_architecture=machine.arch(),
        TF_VAR_upload_writers=json.dumps({ORG: [WRITER]}),
        TF_VAR_alarm_email="operator@example.com",
    )
    made = AwsDeployment(folder / "infra/terraform/aws", environment, packages, "")
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with machine.server(command, f"{url}/moto-api/", folder / "moto.log", machine.clean_environment()):
        ready = made.terraform("init", "-no-color")
        if ready.returncode:
            skip_or_fail(
                "Terraform's AWS provider cannot be had: give terraform init a network, or name a folder of providers "
                f"in TRUST_TEST_PROVIDERS. It said: {ready.stderr.strip()[-300:]}"
            )
        done = made.terraform("apply", "-auto-approve", *OPTIONS)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        made.applied = done.stdout
        yield made


def sign(root: certs.Issued, request: str, now: dt.datetime) -> str:
    """Sign a certificate request as a CA."""
    asked = x509.load_pem_x509_csr(request.encode())
    builder = (
        x509.CertificateBuilder()
        .subject_name(asked.subject)
        .issuer_name(root.cert.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - certs.DAY)
        .not_valid_after(now + certs.YEAR)
    )
    for extension in asked.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    made = builder.sign(root.key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


# pytest runs the tests of a module in order: the last test destroys the deployment.


def test_a_second_apply_changes_nothing(deployment: AwsDeployment) -> None:
    """The applied state is what the files say, so that a later plan shows an operator only real changes."""
    done = deployment.terraform("plan", "-detailed-exitcode", *OPTIONS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


def test_every_function_has_its_size_and_a_role_of_its_own(deployment: AwsDeployment) -> None:
    """Each function of the table, with its handler, memory, timeout, log retention and an alarm on its errors."""
    deployed = {entry["FunctionName"]: entry for entry in deployment.client("lambda").list_functions()["Functions"]}
    groups = {group["logGroupName"]: group for group in deployment.client("logs").describe_log_groups()["logGroups"]}
    alarms = {alarm["AlarmName"] for alarm in deployment.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert sorted(deployed) == sorted(f"trust-{function.slug}" for function in FUNCTIONS)
    for function in FUNCTIONS:
        entry = deployed[f"trust-{function.slug}"]
        assert (entry["Handler"], entry["MemorySize"], entry["Timeout"]) == (
            function.lambda_handler,
            function.memory,
            function.timeout,
        )
        assert entry["Role"].endswith(f":role/trust-{function.slug}")
        assert groups[f"/aws/lambda/trust-{function.slug}"]["retentionInDays"] == 90
        assert f"trust-{function.slug}-errors" in alarms
    assert {"trust-failed", "trust-api-5xx", "trust-verify-client-throttles"} <= alarms


def test_the_api_has_exactly_the_routes_of_the_table(deployment: AwsDeployment) -> None:
    """There is one base URL; each address leads to its function, any other address to a problem document."""
    api = deployment.client("apigatewayv2")
    (http,) = api.get_apis()["Items"]
    routes = api.get_routes(ApiId=http["ApiId"], MaxResults="500")["Items"]
    integrations = {entry["IntegrationId"]: entry for entry in api.get_integrations(ApiId=http["ApiId"])["Items"]}
    leads = {route["RouteKey"]: integrations[route["Target"].partition("/")[2]]["IntegrationUri"] for route in routes}
    expected = {f"{method} {on_api_gateway(path)}": BY_NAME[name].slug for name, method, path in http_routes()}
    assert {key: uri.rpartition(":function:")[2].partition("/")[0] for key, uri in leads.items()} == {
        **{key: f"trust-{slug}" for key, slug in expected.items()},
        "$default": "trust-health",
    }
    assert {integration["PayloadFormatVersion"] for integration in integrations.values()} == {"2.0"}


def test_the_store_is_protected(deployment: AwsDeployment) -> None:
    """Point-in-time recovery, expiry by the attribute that the store writes, and a rotating key."""
    dynamodb, kms = deployment.client("dynamodb"), deployment.client("kms")
    recovery = dynamodb.describe_continuous_backups(TableName="trust-documents")["ContinuousBackupsDescription"]
    assert recovery["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    expiry = dynamodb.describe_time_to_live(TableName="trust-documents")["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}
    key = deployment.outputs["settings"]["TRUST_KEYS"].removeprefix("awskms:")
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]


def test_uploads_are_private_and_each_organization_writes_below_its_own_prefix(deployment: AwsDeployment) -> None:
    """There is no public access. Versions make sure that the object that was read is deleted.

    A writer of one org may write below that org's prefixes only, and a written object starts onUpload.
    """
    s3, bucket = deployment.client("s3"), deployment.outputs["uploads"]
    blocked = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert len(blocked) == 4
    assert all(blocked.values())
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    (statement,) = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert statement["Action"] == "s3:PutObject"
    assert statement["Principal"] == {"AWS": WRITER}
    assert sorted(statement["Resource"]) == [
        f"arn:aws:s3:::{bucket}/{ORG}/{kind}/*" for kind in ("ca", "csr", "server")
    ]
    (wired,) = s3.get_bucket_notification_configuration(Bucket=bucket)["LambdaFunctionConfigurations"]
    assert wired["LambdaFunctionArn"].endswith(":trust-on-upload")
    assert wired["Events"] == ["s3:ObjectCreated:*"]


def test_on_a_real_cloud_tls_a_lifecycle_of_a_day_and_redrive_are_added(deployment: AwsDeployment) -> None:
    """What the emulator does not support is planned without it.

    Access needs TLS, uploads expire after a day, and connection events that failed five times are kept aside.
    """
    planned = deployment.folder.parent / "full.plan"
    done = deployment.terraform("plan", "-refresh=false", f"-out={planned}", *OPTIONS, local="false", protect="true")
    assert done.returncode == 0, done.stderr
    plan = json.loads(deployment.terraform("show", "-json", str(planned)).stdout)
    after = {change["address"]: change["change"]["after"] for change in plan["resource_changes"]}
    (rule,) = after["aws_s3_bucket_lifecycle_configuration.uploads[0]"]["rule"]
    assert rule["expiration"][0]["days"] == 1
    assert rule["noncurrent_version_expiration"][0]["noncurrent_days"] == 1
    statements = json.loads(after["aws_s3_bucket_policy.uploads[0]"]["policy"])["Statement"]
    (tls,) = [statement for statement in statements if statement["Effect"] == "Deny"]
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    redrive = json.loads(after["aws_sqs_queue_redrive_policy.sightings[0]"]["redrive_policy"])
    assert redrive["maxReceiveCount"] == 5
    assert redrive["deadLetterTargetArn"].endswith(":trust-failed")
    assert after["aws_dynamodb_table.documents"]["deletion_protection_enabled"] is True
    assert after["aws_s3_bucket.uploads"]["force_destroy"] is False


def test_events_that_fail_for_good_are_kept_and_reports_run_daily(deployment: AwsDeployment) -> None:
    """After three tries, uploads and reports go to one queue, which has an alarm."""
    sqs, events, functions = (deployment.client(service) for service in ("sqs", "events", "lambda"))
    queue = deployment.outputs["settings"]["TRUST_QUEUE"].removeprefix("sqs:")
    failed = sqs.get_queue_attributes(QueueUrl=deployment.outputs["failed"], AttributeNames=["All"])["Attributes"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    (consumer,) = functions.list_event_source_mappings(EventSourceArn=attributes["QueueArn"])["EventSourceMappings"]
    assert consumer["FunctionArn"].endswith(":trust-record-sightings")
    for name in ("trust-on-upload", "trust-expiry-report"):
        then = functions.get_function_event_invoke_config(FunctionName=name)
        assert then["DestinationConfig"]["OnFailure"]["Destination"] == failed["QueueArn"]
    (rule,) = events.list_rules()["Rules"]
    assert rule["ScheduleExpression"] == "cron(0 6 * * ? *)"
    (target,) = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert target["Arn"].endswith(":trust-expiry-report")


# --------------------------------------------------------------------------------------- the packaged functions at work


def restrict_credentials(deployment: AwsDeployment, name: str) -> dict[str, str]:
    """Return credentials with exactly the actions of the role that Terraform made for function *name*.

    The emulator compares actions, not resources and conditions, so the actions are allowed on every resource.
    """
    iam, sts = deployment.client("iam"), deployment.client("sts")
    policy = iam.get_role_policy(RoleName=name, PolicyName="least")["PolicyDocument"]
    actions = [{"Effect": "Allow", "Action": statement["Action"], "Resource": "*"} for statement in policy["Statement"]]
    iam.create_role(RoleName=f"as-{name}", AssumeRolePolicyDocument="{}")
    document = json.dumps({"Version": "2012-10-17", "Statement": actions})
    iam.put_role_policy(RoleName=f"as-{name}", PolicyName="least", PolicyDocument=document)
    role = f"arn:aws:iam::123456789012:role/as-{name}"
    made = sts.assume_role(RoleArn=role, RoleSessionName=name)["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_SESSION_TOKEN": made["SessionToken"],
    }


@contextlib.contextmanager
def enforce_iam(deployment: AwsDeployment) -> Iterator[None]:
    """Make the emulator check every call with IAM, within the block."""

    def enforce_after(calls: bytes) -> None:
        url = f"{deployment.environment['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
        request = urllib.request.Request(url, calls, {"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(request, timeout=60).close()

    enforce_after(b"0")
    try:
        yield
    finally:
        enforce_after(b"inf")


@pytest.fixture(scope="module")
def fleet(deployment: AwsDeployment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, lambdas.Lambda]:
    """Each function as Lambda starts it (package, handler, environment), and one organization."""
    folder = tmp_path_factory.mktemp("lambda")
    runtime = lambdas.runtime(folder / "runtime")
    functions = deployment.client("lambda")
    deployment.admin("org", "create", ORG)
    fleet = {}
    for name, deployed in deployment.outputs["functions"].items():
        configuration = functions.get_function_configuration(FunctionName=deployed)
        task = lambdas.unpack(deployment.packages / f"{name}.zip", folder / name)
        environment = {
            **configuration["Environment"]["Variables"],
            **deployment.credentials,
            **restrict_credentials(deployment, deployed),
        }
        fleet[name] = lambdas.Lambda(task, runtime, configuration["Handler"], environment)
    return fleet


def test_the_packaged_functions_work_on_what_terraform_made(
    deployment: AwsDeployment, fleet: dict[str, lambdas.Lambda]
) -> None:
    """From a CA's upload to a device's verdict, and from a request to a renewal with the key that KMS sealed.

    Each call is an API Gateway event to one packaged function in an empty environment, with its own role's actions.
    """
    operator, broker = deployment.key("operator"), deployment.key("broker")
    now = dt.datetime.now(dt.UTC)
    root = certs.ca("Thermo Root", not_before=now - certs.DAY, not_after=now + certs.YEAR)
    device = certs.leaf("d:thermo:42", root, not_before=now - certs.DAY, not_after=now + certs.YEAR)

    def call(
        name: str, method: str, path: str, body: Any = "", *, key: tuple[str, str] = operator
    ) -> lambdas.LambdaAnswer:
        text = json.dumps(body) if body else ""
        with enforce_iam(deployment):
            return fleet[name].invoke(lambdas.event(method, f"/api/v0002{path}", text, key=key))

    made = call("uploadCA", "POST", "/authentication/cacertificates", {"certificate": root.pem}).ok(201)
    listed = call("manageCertificates", "GET", "/authentication/cacertificates").ok()
    assert [ca["id"] for ca in listed["results"]] == [made["id"]]

    asked = {"serverName": f"{ORG}.messaging.example.com", "clientId": "d:mtxpd0:thermo:42", "certificate": device.pem}
    question = lambdas.event("POST", "/api/v0002/authorization/verifyclient", json.dumps(asked), key=broker)
    with enforce_iam(deployment):
        # The second of two calls: on a busy machine a cold start may take longer than the deadline of a verdict.
        verdict = fleet["verifyClient"].invoke_all([question, question])[-1].ok()
    assert (verdict["decision"], verdict["code"]) == ("allow", "allowed")

    request = call("generateCSR", "POST", "/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
    assert "BEGIN CERTIFICATE REQUEST" in request["csr"]
    signed = sign(root, request["csr"], now)
    path = f"/authentication/servercertificates/{request['id']}"
    call("fulfillCSR", "PUT", f"{path}/certificate", {"certificate": signed}).ok()
    renewed = call("manageCertificates", "POST", f"{path}/renewal").ok(201)
    assert renewed["csr"] != request["csr"]
    entries = call("activityLog", "GET", "/activity").ok()["results"]
    assert {entry["what"] for entry in entries}
    assert fleet["health"].invoke(lambdas.event("GET", "/healthz")).ok() == {"status": "ok"}


def test_the_console_is_served_from_the_same_base_url_without_any_right(
    deployment: AwsDeployment, fleet: dict[str, lambdas.Lambda]
) -> None:
    """The role may only write its log; the page is answered while IAM checks every call."""
    policy = deployment.client("iam").get_role_policy(RoleName="trust-console", PolicyName="least")["PolicyDocument"]
    assert [statement["Sid"] for statement in policy["Statement"]] == ["logs"]
    with enforce_iam(deployment):
        page = fleet["console"].invoke(lambdas.event("GET", "/console/"))
    assert (page.status, page.raw["headers"]["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.body == (machine.ROOT / "console/index.html").read_bytes()


def test_verify_client_cannot_write(deployment: AwsDeployment, fleet: dict[str, lambdas.Lambda]) -> None:
    """verifyClient's role may not put a document, even if its code tried to."""
    credentials = fleet["verifyClient"].environment
    client = boto3.client(
        "dynamodb",
        region_name=REGION,
        endpoint_url=deployment.environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=credentials["AWS_SESSION_TOKEN"],
    )
    with enforce_iam(deployment), pytest.raises(ClientError, match="AccessDenied"):
        client.put_item(TableName="trust-documents", Item={"pk": {"S": "x"}, "sk": {"S": "x"}})


def test_all_documents_are_in_the_table(deployment: AwsDeployment, fleet: dict[str, lambdas.Lambda]) -> None:
    """The functions worked on Terraform's table, which holds what they wrote."""
    stored = deployment.client("dynamodb").scan(TableName="trust-documents")["Items"]
    assert any(ORG in item["pk"]["S"] + item["sk"]["S"] for item in stored)


@pytest.mark.parametrize("name", sorted({route.endpoint.function for route in every_route()}))
def test_a_function_answers_its_own_routes_only(fleet: dict[str, lambdas.Lambda], name: str) -> None:
    """A package has no other function's modules, so another function's address is a 404 problem document."""
    other = "/healthz" if name != "health" else "/api/v0002/session"
    answer = fleet[name].invoke(lambdas.event("GET", other))
    assert answer.status == 404
    assert answer.raw["headers"]["content-type"] == "application/problem+json"


def test_destroy_leaves_nothing(deployment: AwsDeployment) -> None:
    """`terraform destroy` removes what apply made; only the master key remains for 30 days."""
    s3 = deployment.client("s3")
    done = deployment.terraform("destroy", "-auto-approve", "-refresh=false", *OPTIONS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert deployment.terraform("state", "list").stdout == ""
    assert s3.list_buckets()["Buckets"] == []
    assert deployment.client("dynamodb").list_tables()["TableNames"] == []
    assert deployment.client("lambda").list_functions()["Functions"] == []
    roles = [role["RoleName"] for role in deployment.client("iam").list_roles()["Roles"]]
    assert [role for role in roles if not role.startswith("as-")] == []  # other roles are the test's own
    assert deployment.client("sqs").list_queues().get("QueueUrls", []) == []
    assert deployment.client("logs").describe_log_groups()["logGroups"] == []
