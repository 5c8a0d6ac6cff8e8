"""Write openapi.json and the files that the deployments read.

    python -m infra.generate [--check]

All of them are made from functions/registry.py, the declarations of the endpoints, and infra/table.py.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import yaml

from functions.registry import Trigger
from infra import error_pages
from infra.api_page import api_page
from infra.openapi import document
from infra.table import FUNCTIONS, DeployedFunction, Right, as_json, http_routes, on_api_gateway

ROOT: Final = Path(__file__).resolve().parent.parent
BEGIN: Final = "# >>> python -m infra.generate\n"
END: Final = "# <<<\n"
SERVICE: Final = "service"  # functions-framework's target that answers every route in one process


def files() -> dict[Path, str]:
    """Return every generated file with its content."""
    return {
        ROOT / "functions/api/openapi.json": _json(document()),
        ROOT / "infra/functions.json": _json(as_json()),
        ROOT / "infra/serverless/roles.json": _json({"Resources": _roles() | _alarms()}),
        ROOT / "serverless.yml": _between((ROOT / "serverless.yml").read_text(encoding="utf-8"), _yaml(_serverless())),
        ROOT / "infra/knative/functions.yaml": _documents(
            part for function in FUNCTIONS for part in _knative(function)
        ),
        ROOT / "infra/knative/service.yaml": _documents(
            [_account("trust"), _knative_service(SERVICE, 1024, 30, "trust")]
        ),
        ROOT / "console/api.html": api_page(document()),
        **{ROOT / "console/errors" / name: page for name, page in error_pages.pages().items()},
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


class _Plain(yaml.SafeDumper):  # type: ignore[misc] # it has no types
    """YAML without anchors: repeated values are written again."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _yaml(value: object) -> str:
    text: str = yaml.dump(value, Dumper=_Plain, sort_keys=False, width=200)
    return text


def _documents(values: Any) -> str:
    return "# Made by python -m infra.generate.\n" + "".join("---\n" + _yaml(value) for value in values)


def _between(text: str, generated: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "".join(f"  {line}\n" for line in generated.splitlines()) + END + after


# ---------------------------------------------------------------------------------------------- Serverless Framework


def _serverless() -> dict[str, Any]:
    return {function.name: _serverless_function(function) for function in FUNCTIONS}


def _serverless_function(function: DeployedFunction) -> dict[str, Any]:
    definition: dict[str, Any] = {
        "handler": function.lambda_handler,
        "memorySize": function.memory,
        "timeout": function.timeout,
        "role": _logical(function, "Role"),
        "package": {"artifact": f"dist/aws/{function.name}.zip"},
        "events": _events(function),
    }
    if function.trigger in (Trigger.OBJECT, Trigger.SCHEDULE):
        definition["maximumRetryAttempts"] = 2
        definition["destinations"] = {"onFailure": {"type": "sqs", "arn": _arn("Failed")}}
    if Right.WEBHOOK in function.rights:
        definition["environment"] = {
            "TRUST_WEBHOOK": "${self:custom.webhook}",
            "TRUST_WEBHOOK_SECRET": "${self:custom.webhookSecret}",
        }
    return definition


def _events(function: DeployedFunction) -> list[Any]:
    match function.trigger:
        case Trigger.OBJECT:
            return [{"s3": {"bucket": "uploads", "event": "s3:ObjectCreated:*"}}]
        case Trigger.SCHEDULE:
            return [{"schedule": {"rate": ["cron(0 6 * * ? *)"]}}]
        case Trigger.QUEUE:
            batch = {"batchSize": 100, "maximumBatchingWindow": 5, "maximumConcurrency": 5}
            return [{"sqs": {"arn": _arn("Sightings"), **batch, "functionResponseType": "ReportBatchItemFailures"}}]
        case Trigger.HTTP:
            addresses = [
                (method, on_api_gateway(path)) for name, method, path in http_routes() if name == function.name
            ]
            events: list[Any] = [{"httpApi": {"method": method, "path": path}} for method, path in addresses]
            # Every other address: a problem document instead of the gateway's own format.
            return [*events, {"httpApi": "*"}] if function.name == "health" else events


def _arn(resource: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [resource, "Arn"]}


def _logical(function: DeployedFunction, kind: str) -> str:
    return function.name[0].upper() + function.name[1:] + kind


_READ: Final = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"]
_BUCKET: Final = "arn:${AWS::Partition}:s3:::${self:custom.uploads}"
_UPLOADS: Final = [{"Fn::Sub": _BUCKET}, {"Fn::Sub": f"{_BUCKET}/*"}]
_CONTEXT: Final = {"Null": {"kms:EncryptionContext:org": "false", "kms:EncryptionContext:certificate": "false"}}
_RECEIVE: Final = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
_REMOVE: Final = [
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:ListBucket",  # without the two ListBucket actions, S3 answers 403 instead of 404 for a missing object
    "s3:ListBucketVersions",
]

# What each right is on AWS. A test compares this table with infra/terraform/aws/functions.tf.
GRANTS: Final[Mapping[Right, Mapping[str, Any]]] = {
    Right.READ: {"Action": _READ, "Resource": _arn("Documents")},
    Right.CHANGE: {"Action": [*_READ, "dynamodb:DeleteItem", "dynamodb:PutItem"], "Resource": _arn("Documents")},
    Right.SEAL: {"Action": ["kms:GenerateDataKey"], "Resource": _arn("MasterKey"), "Condition": _CONTEXT},
    Right.OPEN: {"Action": ["kms:Decrypt"], "Resource": _arn("MasterKey"), "Condition": _CONTEXT},
    Right.SEND: {"Action": ["sqs:SendMessage"], "Resource": _arn("Sightings")},
    Right.RECEIVE: {"Action": _RECEIVE, "Resource": _arn("Sightings")},
    Right.UPLOADS: {"Action": _REMOVE, "Resource": _UPLOADS},
}


def _roles() -> dict[str, Any]:
    return {_logical(function, "Role"): _role(function) for function in FUNCTIONS}


def _role(function: DeployedFunction) -> dict[str, Any]:
    name = "${self:service}-${self:provider.stage}-" + function.name
    logs = {
        "Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/lambda/" + name + ":*"
    }
    allowed: list[dict[str, Any]] = [{"Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": logs}]
    allowed += [dict(GRANTS[right]) for right in sorted(function.rights) if right in GRANTS]
    if function.trigger in (Trigger.OBJECT, Trigger.SCHEDULE):
        allowed.append({"Action": ["sqs:SendMessage"], "Resource": _arn("Failed")})
    assume = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement} for statement in allowed]}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [assume]},
            "Policies": [{"PolicyName": "least", "PolicyDocument": policy}],
        },
    }


def _alarms() -> dict[str, Any]:
    queue = {"QueueName": {"Fn::GetAtt": ["Failed", "QueueName"]}}
    return {
        "FailedAlarm": _alarm("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", queue),
        **{
            _logical(function, "Alarm"): _alarm(
                "AWS/Lambda", "Errors", "Sum", {"FunctionName": {"Ref": _logical(function, "LambdaFunction")}}
            )
            for function in FUNCTIONS
        },
    }


def _alarm(namespace: str, metric: str, statistic: str, dimensions: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "Namespace": namespace,
            "MetricName": metric,
            "Statistic": statistic,
            "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": 0,
            "Period": 300,
            "EvaluationPeriods": 1,
            "TreatMissingData": "notBreaching",
            "AlarmActions": [{"Ref": "Alarms"}],
        },
    }


# ------------------------------------------------------------------------------------------------------------ Knative


def _knative(function: DeployedFunction) -> list[dict[str, Any]]:
    service = _knative_service(function.name, function.memory, function.timeout, function.slug)
    parts = [_account(function.slug), service]
    if function.trigger is not Trigger.HTTP:
        environment = service["spec"]["template"]["spec"]["containers"][0]["env"]
        environment.append({"name": "FUNCTION_SIGNATURE_TYPE", "value": "cloudevent"})
        service["metadata"]["labels"]["networking.knative.dev/visibility"] = "cluster-local"  # never on a public router
    if function.trigger is Trigger.SCHEDULE:
        parts.append(_every_day(function.slug))
    return parts


def _account(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def _every_day(slug: str) -> dict[str, Any]:
    sink = {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": slug}}
    spec = {"schedule": "0 6 * * *", "contentType": "application/json", "data": "{}", "sink": sink}
    return {"apiVersion": "sources.knative.dev/v1", "kind": "PingSource", "metadata": {"name": slug}, "spec": spec}


def _knative_service(target: str, memory: int, timeout: int, name: str) -> dict[str, Any]:
    """Return the service of a target. Its probe asks /healthz if the target answers it, else it opens the port."""
    has_health = target in ("health", SERVICE)
    probe: dict[str, Any] = {"httpGet": {"path": "/healthz"}} if has_health else {"tcpSocket": {"port": 0}}
    container = {
        "image": "mqtt-trust",
        "env": [{"name": "FUNCTION_TARGET", "value": target}],
        "envFrom": [{"configMapRef": {"name": "trust-settings"}}],
        "resources": {"requests": {"memory": f"{memory}Mi"}, "limits": {"memory": f"{memory}Mi", "cpu": "1"}},
        "readinessProbe": probe,
        "securityContext": {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the container's own
    }
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "mqtt-trust"}},
        "spec": {
            "template": {
                "spec": {
                    "serviceAccountName": name,
                    "containerConcurrency": 16,
                    "timeoutSeconds": timeout,
                    "containers": [container],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                }
            }
        },
    }


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is not up to date.")
def main(check: bool) -> None:
    """Write the files that are not up to date; with *check*, only name them."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        click.echo(f"{path.relative_to(ROOT)} {'is not up to date' if check else 'is written'}")
        if not check:
            path.write_text(files()[path], encoding="utf-8")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
