# Size, trigger, rights and routes of the functions are read from infra/functions.json, which `python -m infra.generate`
# derives from functions/registry.py, the endpoints and infra/table.py.

data "aws_caller_identity" "me" {}
data "aws_partition" "here" {}

locals {
  functions = jsondecode(file("${path.module}/../../functions.json"))
  packages  = coalesce(var.packages, "${path.module}/../../../dist/aws")
  account   = data.aws_caller_identity.me.account_id

  by_trigger = { for trigger in ["http", "object", "schedule", "queue"] : trigger => [for name, function in local.functions : name if function.trigger == trigger] }
  on_upload  = one(local.by_trigger["object"])
  report     = one(local.by_trigger["schedule"])
  consumer   = one(local.by_trigger["queue"])

  routes = merge([
    for name, function in local.functions : { for route in function.routes : "${route.method} ${replace(route.path, "/\\{\\*(\\w+)\\}/", "{$1+}")}" => name }
  ]...)

  settings = merge({
    TRUST_STORE         = "dynamodb://${aws_dynamodb_table.documents.name}?region=${var.region}"
    TRUST_KEYS          = "awskms:${aws_kms_key.master.arn}"
    TRUST_QUEUE         = "sqs:${aws_sqs_queue.sightings.url}"
    TRUST_UPLOAD_BUCKET = aws_s3_bucket.uploads.bucket
    TRUST_DOMAIN        = var.domain
  }, var.settings)
  webhook = { for name, value in { TRUST_WEBHOOK = var.webhook, TRUST_WEBHOOK_SECRET = var.webhook_secret } : name => value if value != null }
}
