# Connection events: verifyClient sends them asynchronously, recordSightings writes them to the table.
resource "aws_sqs_queue" "sightings" {
  name                       = "${var.name}-sightings"
  message_retention_seconds  = 86400
  visibility_timeout_seconds = 6 * local.functions[local.consumer].timeout # AWS's advice for a Lambda that receives
  sqs_managed_sse_enabled    = true
}

# moto returns this policy with other white space, which would be a change at every plan.
resource "aws_sqs_queue_redrive_policy" "sightings" {
  count          = var.local ? 0 : 1
  queue_url      = aws_sqs_queue.sightings.url
  redrive_policy = jsonencode({ deadLetterTargetArn = aws_sqs_queue.failed.arn, maxReceiveCount = 5 })
}

resource "aws_lambda_event_source_mapping" "sightings" {
  event_source_arn                   = aws_sqs_queue.sightings.arn
  function_name                      = aws_lambda_function.function[local.consumer].arn
  batch_size                         = 100
  maximum_batching_window_in_seconds = 5
  function_response_types            = ["ReportBatchItemFailures"]
  scaling_config {
    maximum_concurrency = 5 # connection events may wait; requests may not
  }
  depends_on = [aws_iam_role_policy.function]
}

# What failed finally: uploads and reports after their retries, connection events after five deliveries.
resource "aws_sqs_queue" "failed" {
  name                      = "${var.name}-failed"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  policy                    = data.aws_iam_policy_document.failed.json
}

locals {
  failed_arn = "arn:${data.aws_partition.here.partition}:sqs:${var.region}:${local.account}:${var.name}-failed"
}

data "aws_iam_policy_document" "failed" {
  statement {
    sid       = "Schedule"
    actions   = ["sqs:SendMessage"]
    resources = [local.failed_arn]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.report.arn]
    }
  }
}
