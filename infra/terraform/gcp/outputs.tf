output "address" {
  value       = google_compute_global_address.api.address
  description = "What the A record of api_host must be."
}

output "url" {
  value       = "https://${var.api_host}"
  description = "The base URL of the API."
}

output "settings" {
  value       = local.settings
  description = "What python -m functions.admin needs in its environment to work on this deployment."
}

output "uploads" {
  value       = google_storage_bucket.uploads.name
  description = "The bucket for uploads."
}
