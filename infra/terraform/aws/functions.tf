resource "aws_s3_bucket" "code" {
  bucket        = "${var.name}-code-${local.account}-${var.region}"
  force_destroy = true # the packages can be built again
}

resource "aws_s3_object" "package" {
  for_each    = local.functions
  bucket      = aws_s3_bucket.code.id
  key         = "${each.key}/${filesha256("${local.packages}/${each.key}.zip")}.zip"
  source      = "${local.packages}/${each.key}.zip"
  source_hash = filesha256("${local.packages}/${each.key}.zip")
}

resource "aws_cloudwatch_log_group" "function" {
  for_each          = local.functions
  name              = "/aws/lambda/${var.name}-${each.value.slug}"
  retention_in_days = var.log_days
}

resource "aws_lambda_function" "function" {
  for_each         = local.functions
  function_name    = "${var.name}-${each.value.slug}"
  description      = "MQTT Trust: ${each.key}"
  role             = aws_iam_role.function[each.key].arn
  runtime          = "python${var.python}"
  architectures    = [var.architecture]
  handler          = each.value.lambdaHandler
  s3_bucket        = aws_s3_bucket.code.id
  s3_key           = aws_s3_object.package[each.key].key
  source_code_hash = filebase64sha256("${local.packages}/${each.key}.zip")
  memory_size      = each.value.memory
  timeout          = each.value.timeout
  environment {
    variables = merge(local.settings, contains(each.value.rights, "webhook") ? local.webhook : {})
  }
  depends_on = [aws_cloudwatch_log_group.function, aws_iam_role_policy.function]
}

# An upload or report that failed is tried twice more. Then its event is kept in the queue `failed`.
resource "aws_lambda_function_event_invoke_config" "function" {
  for_each                     = toset([local.on_upload, local.report])
  function_name                = aws_lambda_function.function[each.key].function_name
  maximum_retry_attempts       = 2
  maximum_event_age_in_seconds = 21600
  destination_config {
    on_failure {
      destination = aws_sqs_queue.failed.arn
    }
  }
}

# ------------------------------------------------------------------------------------------ one role per function

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "function" {
  for_each           = local.functions
  name               = "${var.name}-${each.value.slug}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "function" {
  for_each = local.functions
  name     = "least"
  role     = aws_iam_role.function[each.key].id
  policy   = data.aws_iam_policy_document.function[each.key].json
}

locals {
  reading  = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"]
  changing = ["dynamodb:DeleteItem", "dynamodb:PutItem"]

  # What each right of infra/table.py is on AWS.
  grants = {
    read   = { actions = local.reading, resources = [aws_dynamodb_table.documents.arn] }
    change = { actions = concat(local.reading, local.changing), resources = [aws_dynamodb_table.documents.arn] }
    seal   = { actions = ["kms:GenerateDataKey"], resources = [aws_kms_key.master.arn] }
    open   = { actions = ["kms:Decrypt"], resources = [aws_kms_key.master.arn] }
    tell   = { actions = ["sqs:SendMessage"], resources = [aws_sqs_queue.sightings.arn] }
    hear   = { actions = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"], resources = [aws_sqs_queue.sightings.arn] }
    uploads = { # without the two ListBucket actions, S3 answers 403 instead of 404 for a missing object
      actions   = ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:ListBucketVersions"]
      resources = [aws_s3_bucket.uploads.arn, "${aws_s3_bucket.uploads.arn}/*"]
    }
  }
}

data "aws_iam_policy_document" "function" {
  for_each = local.functions
  statement {
    sid       = "logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function[each.key].arn}:*"]
  }
  dynamic "statement" {
    for_each = { for right in each.value.rights : right => local.grants[right] if contains(keys(local.grants), right) }
    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = statement.value.resources
      dynamic "condition" { # a data key is bound to one certificate of one organization
        for_each = contains(["seal", "open"], statement.key) ? ["org", "certificate"] : []
        content {
          test     = "Null"
          variable = "kms:EncryptionContext:${condition.value}"
          values   = ["false"]
        }
      }
    }
  }
  dynamic "statement" {
    for_each = contains(["object", "schedule"], each.value.trigger) ? [1] : []
    content {
      sid       = "failed"
      actions   = ["sqs:SendMessage"]
      resources = [aws_sqs_queue.failed.arn]
    }
  }
}
