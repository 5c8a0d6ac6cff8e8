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

# Documents that expire go by themselves. No index on a time that only grows: it would make one hot spot of all writes.
resource "google_firestore_field" "expires" {
  database   = google_firestore_database.documents.name
  collection = "documents"
  field      = "expires"
  ttl_config {}
  index_config {}
}

# Nobody asks by what is in a document, so nothing of it is indexed.
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
