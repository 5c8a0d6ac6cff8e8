# Connection events: verifyClient sends them asynchronously, recordSightings writes them to Firestore.
resource "google_pubsub_topic" "sightings" {
  name                       = "${var.name}-sightings"
  message_retention_duration = "86400s"
  depends_on                 = [google_project_service.api]
}

# The daily report: Scheduler publishes, Eventarc delivers.
resource "google_pubsub_topic" "report" {
  name       = "${var.name}-expiry-report"
  depends_on = [google_project_service.api]
}

resource "google_cloud_scheduler_job" "report" {
  name      = "${var.name}-expiry-report"
  region    = var.region
  schedule  = var.report_at
  time_zone = "Etc/UTC"
  pubsub_target {
    topic_name = google_pubsub_topic.report.id
    data       = base64encode("{}")
  }
}

locals {
  published = "google.cloud.pubsub.topic.v1.messagePublished"
  triggers = {
    object   = { type = "google.cloud.storage.object.v1.finalized", bucket = google_storage_bucket.uploads.name, topic = null }
    queue    = { type = local.published, bucket = null, topic = google_pubsub_topic.sightings.id }
    schedule = { type = local.published, bucket = null, topic = google_pubsub_topic.report.id }
  }
}

# The only identity that may call the event functions.
resource "google_service_account" "events" {
  account_id   = "${var.name}-events"
  display_name = "MQTT Trust: delivers events"
}

resource "google_project_iam_member" "events" {
  project = var.project
  role    = "roles/eventarc.eventReceiver"
  member  = google_service_account.events.member
}

resource "google_cloud_run_v2_service_iam_member" "events" {
  for_each = local.events
  name     = google_cloud_run_v2_service.function[each.key].name
  location = var.region
  role     = "roles/run.invoker"
  member   = google_service_account.events.member
}

# Cloud Storage's service account publishes the events that Eventarc delivers.
data "google_storage_project_service_account" "storage" {
  project = var.project
}

resource "google_project_iam_member" "storage_publishes" {
  project = var.project
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:${data.google_storage_project_service_account.storage.email_address}"
}

resource "google_eventarc_trigger" "event" {
  for_each        = local.events
  name            = "${var.name}-${each.value.slug}"
  location        = var.region
  service_account = google_service_account.events.email
  matching_criteria {
    attribute = "type"
    value     = local.triggers[each.value.trigger].type
  }
  dynamic "matching_criteria" {
    for_each = local.triggers[each.value.trigger].bucket == null ? [] : [1]
    content {
      attribute = "bucket"
      value     = local.triggers[each.value.trigger].bucket
    }
  }
  dynamic "transport" {
    for_each = local.triggers[each.value.trigger].topic == null ? [] : [1]
    content {
      pubsub {
        topic = local.triggers[each.value.trigger].topic
      }
    }
  }
  destination {
    cloud_run_service {
      service = google_cloud_run_v2_service.function[each.key].name
      region  = var.region
    }
  }
  depends_on = [google_project_iam_member.events, google_project_iam_member.storage_publishes, google_cloud_run_v2_service_iam_member.events]
}
