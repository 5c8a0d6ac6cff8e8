resource "google_kms_key_ring" "ring" {
  name       = var.name
  location   = var.region
  depends_on = [google_project_service.api]
}

# The master key that seals private keys. Every sealed key would be lost with it, so no plan may destroy it.
resource "google_kms_crypto_key" "master" {
  name                       = "master"
  key_ring                   = google_kms_key_ring.ring.id
  purpose                    = "ENCRYPT_DECRYPT"
  rotation_period            = "7776000s" # 90 days
  destroy_scheduled_duration = "2592000s" # 30 days
  lifecycle {
    prevent_destroy = true
  }
}

resource "google_secret_manager_secret" "webhook" {
  count     = var.webhook == null ? 0 : 1
  secret_id = "${var.name}-webhook-secret"
  replication {
    auto {}
  }
  depends_on = [google_project_service.api]
}
