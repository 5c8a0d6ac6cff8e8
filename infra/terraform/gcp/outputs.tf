output "address" {
  value       = google_compute_global_address.api.address
  description = "The address that the A record of api_host must have."
}

output "url" {
  value       = "https://${var.api_host}"
  description = "The base URL of the API."
}

output "settings" {
  value       = local.settings
  description = "The environment of python -m functions.admin for this deployment."
}

output "uploads" {
  value       = google_storage_bucket.uploads.name
  description = "The bucket for uploads."
}
