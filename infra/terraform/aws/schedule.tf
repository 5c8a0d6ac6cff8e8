resource "aws_cloudwatch_event_rule" "report" {
  name                = "${var.name}-expiry-report"
  schedule_expression = var.report_at
}

resource "aws_cloudwatch_event_target" "report" {
  rule = aws_cloudwatch_event_rule.report.name
  arn  = aws_lambda_function.function[local.report].arn
  retry_policy {
    maximum_retry_attempts       = 2
    maximum_event_age_in_seconds = 21600
  }
  dead_letter_config {
    arn = aws_sqs_queue.failed.arn
  }
}

resource "aws_lambda_permission" "report" {
  statement_id  = "schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.function[local.report].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.report.arn
}
