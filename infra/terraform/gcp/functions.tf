# One Cloud Run service per function, all of one image. FUNCTION_TARGET names the function.
resource "google_cloud_run_v2_service" "function" {
  for_each            = local.functions
  name                = "${var.name}-${each.value.slug}"
  location            = var.region
  deletion_protection = false
  ingress             = each.value.trigger == "http" ? "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER" : "INGRESS_TRAFFIC_INTERNAL_ONLY"

  template {
    service_account                  = google_service_account.function[each.key].email
    timeout                          = "${each.value.timeout}s"
    max_instance_request_concurrency = 16
    scaling {
      min_instance_count = each.key == "verifyClient" ? var.warm_instances : 0
      max_instance_count = var.most_instances
    }
    containers {
      image = var.image
      resources {
        limits = {
          cpu    = "1"
          memory = "${max(512, each.value.memory)}Mi" # Google's minimum
        }
        cpu_idle          = true
        startup_cpu_boost = true
      }
      env {
        name  = "FUNCTION_TARGET"
        value = each.key
      }
      env {
        name  = "FUNCTION_SIGNATURE_TYPE"
        value = each.value.trigger == "http" ? "http" : "cloudevent"
      }
      dynamic "env" {
        for_each = local.settings
        content {
          name  = env.key
          value = env.value
        }
      }
      dynamic "env" {
        for_each = contains(each.value.rights, "webhook") && var.webhook != null ? [1] : []
        content {
          name  = "TRUST_WEBHOOK"
          value = var.webhook
        }
      }
      dynamic "env" {
        for_each = contains(each.value.rights, "webhook") && var.webhook != null ? [1] : []
        content {
          name = "TRUST_WEBHOOK_SECRET"
          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.webhook[0].secret_id
              version = "latest"
            }
          }
        }
      }
      startup_probe {
        tcp_socket {
          port = 8080
        }
        period_seconds    = 1
        failure_threshold = 30
      }
    }
  }
  depends_on = [google_project_service.api, google_secret_manager_secret_iam_member.webhook]
}

# Callers bring an API key or token, which the functions check. Only the load balancer reaches these services.
resource "google_cloud_run_v2_service_iam_member" "public" {
  for_each = local.http
  name     = google_cloud_run_v2_service.function[each.key].name
  location = var.region
  role     = "roles/run.invoker"
  member   = "allUsers"
}

# ------------------------------------------------------------------------------- one identity with least rights per function

resource "google_service_account" "function" {
  for_each     = local.functions
  account_id   = "${var.name}-${each.value.slug}"
  display_name = "MQTT Trust: ${each.key}"
}

locals {
  with      = { for right in ["read", "change", "seal", "open", "tell", "uploads", "webhook"] : right => { for name, function in local.functions : name => google_service_account.function[name].member if contains(function.rights, right) } }
  documents = "projects/${var.project}/databases/${google_firestore_database.documents.name}"
}

resource "google_project_iam_member" "read" {
  for_each = local.with["read"]
  project  = var.project
  role     = "roles/datastore.viewer"
  member   = each.value
  condition {
    title      = "this database"
    expression = "resource.name == \"${local.documents}\""
  }
}

resource "google_project_iam_member" "change" {
  for_each = local.with["change"]
  project  = var.project
  role     = "roles/datastore.user"
  member   = each.value
  condition {
    title      = "this database"
    expression = "resource.name == \"${local.documents}\""
  }
}

resource "google_kms_crypto_key_iam_member" "seal" {
  for_each      = local.with["seal"]
  crypto_key_id = google_kms_crypto_key.master.id
  role          = "roles/cloudkms.cryptoKeyEncrypter"
  member        = each.value
}

resource "google_kms_crypto_key_iam_member" "open" {
  for_each      = local.with["open"]
  crypto_key_id = google_kms_crypto_key.master.id
  role          = "roles/cloudkms.cryptoKeyDecrypter"
  member        = each.value
}

resource "google_pubsub_topic_iam_member" "tell" {
  for_each = local.with["tell"]
  topic    = google_pubsub_topic.sightings.id
  role     = "roles/pubsub.publisher"
  member   = each.value
}

resource "google_project_iam_custom_role" "uploads" {
  role_id     = "${var.name}Uploads"
  title       = "MQTT Trust: read and delete uploads"
  permissions = ["storage.objects.get", "storage.objects.delete", "storage.objects.list"] # without list, a missing object is answered with 403 instead of 404
}

resource "google_storage_bucket_iam_member" "uploads" {
  for_each = local.with["uploads"]
  bucket   = google_storage_bucket.uploads.name
  role     = google_project_iam_custom_role.uploads.id
  member   = each.value
}

resource "google_secret_manager_secret_iam_member" "webhook" {
  for_each  = var.webhook == null ? {} : local.with["webhook"]
  secret_id = google_secret_manager_secret.webhook[0].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = each.value
}
