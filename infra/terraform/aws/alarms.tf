resource "aws_sns_topic" "alarms" {
  name = "${var.name}-alarms"
}

resource "aws_sns_topic_subscription" "email" {
  count     = var.alarm_email == null ? 0 : 1
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

locals {
  alarms = merge(
    { for name, function in local.functions : "${function.slug}-errors" => {
      namespace  = "AWS/Lambda", metric = "Errors", statistic = "Sum", threshold = 0
      dimensions = { FunctionName = aws_lambda_function.function[name].function_name }
    } },
    {
      verify-client-throttles = {
        namespace  = "AWS/Lambda", metric = "Throttles", statistic = "Sum", threshold = 0
        dimensions = { FunctionName = aws_lambda_function.function["verifyClient"].function_name }
      }
      api-5xx = {
        namespace  = "AWS/ApiGateway", metric = "5xx", statistic = "Sum", threshold = 0
        dimensions = { ApiId = aws_apigatewayv2_api.http.id }
      }
      failed = {
        namespace  = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", statistic = "Maximum", threshold = 0
        dimensions = { QueueName = aws_sqs_queue.failed.name }
      }
      sightings-wait = {
        namespace  = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", statistic = "Maximum", threshold = 3600
        dimensions = { QueueName = aws_sqs_queue.sightings.name }
      }
    },
  )
}

resource "aws_cloudwatch_metric_alarm" "alarm" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  statistic           = each.value.statistic
  threshold           = each.value.threshold
  dimensions          = each.value.dimensions
  comparison_operator = "GreaterThanThreshold"
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}
