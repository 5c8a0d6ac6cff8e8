output "url" {
  value       = aws_apigatewayv2_api.http.api_endpoint
  description = "The base URL of the API."
}

output "settings" {
  value       = local.settings
  description = "The environment of python -m functions.admin for this deployment."
}

output "functions" {
  value       = { for name, function in aws_lambda_function.function : name => function.function_name }
  description = "Function -> its name on Lambda."
}

output "uploads" {
  value       = aws_s3_bucket.uploads.bucket
  description = "The bucket for uploads."
}

output "failed" {
  value       = aws_sqs_queue.failed.url
  description = "The queue of events that failed finally."
}
