resource "google_firestore_database" "documents" {
  name                              = "${var.name}-documents"
  location_id                       = var.region
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = var.protect ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.protect ? "ABANDON" : "DELETE"
  depends_on                        = [google_project_service.api]
}

# Firestore deletes expired documents. `expires` has no index: its values only grow, so all writes would meet at its end.
resource "google_firestore_field" "expires" {
  database   = google_firestore_database.documents.name
  collection = "documents"
  field      = "expires"
  ttl_config {}
  index_config {}
}

# No query uses the content of a document, so the content is not indexed.
resource "google_firestore_field" "body" {
  database   = google_firestore_database.documents.name
  collection = "documents"
  field      = "body"
  index_config {}
}

resource "google_firestore_backup_schedule" "daily" {
  database  = google_firestore_database.documents.name
  retention = "1209600s" # 14 days
  daily_recurrence {}
}
