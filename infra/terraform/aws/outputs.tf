output "url" {
  value       = aws_apigatewayv2_api.http.api_endpoint
  description = "The base URL of the API."
}

output "settings" {
  value       = local.settings
  description = "What python -m functions.admin needs in its environment to work on this deployment."
}

output "functions" {
  value       = { for name, one in aws_lambda_function.function : name => one.function_name }
  description = "Function -> its name on Lambda."
}

output "uploads" {
  value       = aws_s3_bucket.uploads.bucket
  description = "The bucket for uploads."
}

output "failed" {
  value       = aws_sqs_queue.failed.url
  description = "The queue of what failed for good."
}
