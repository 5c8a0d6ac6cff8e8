# Decisions by code and organization, counted from the log lines that verifyClient writes.
resource "google_logging_metric" "decisions" {
  name            = "${var.name}/decisions"
  filter          = "resource.type=\"cloud_run_revision\" jsonPayload.logger=\"trust.decisions\""
  value_extractor = "EXTRACT(jsonPayload.decisions)"
  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
    labels {
      key        = "org"
      value_type = "STRING"
    }
    labels {
      key        = "code"
      value_type = "STRING"
    }
  }
  label_extractors = {
    org  = "EXTRACT(jsonPayload.org)"
    code = "EXTRACT(jsonPayload.code)"
  }
  depends_on = [google_project_service.api]
}

resource "google_monitoring_notification_channel" "email" {
  count        = var.alarm_email == null ? 0 : 1
  display_name = "MQTT Trust"
  type         = "email"
  labels       = { email_address = var.alarm_email }
}

resource "google_monitoring_alert_policy" "errors" {
  for_each              = local.functions
  display_name          = "${var.name}: ${each.key} answers 5xx"
  combiner              = "OR"
  notification_channels = google_monitoring_notification_channel.email[*].id
  conditions {
    display_name = "5xx"
    condition_threshold {
      filter          = "resource.type=\"cloud_run_revision\" resource.labels.service_name=\"${google_cloud_run_v2_service.function[each.key].name}\" metric.type=\"run.googleapis.com/request_count\" metric.labels.response_code_class=\"5xx\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_DELTA"
      }
    }
  }
}
