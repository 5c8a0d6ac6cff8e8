# Size, trigger, rights and routes of the functions are read from infra/functions.json, which `python -m infra.generate`
# derives from functions/registry.py, the endpoints and infra/table.py.

data "google_project" "this" {
  project_id = var.project
}

locals {
  functions = jsondecode(file("${path.module}/../../functions.json"))
  http      = { for name, function in local.functions : name => function if function.trigger == "http" }
  events    = { for name, function in local.functions : name => function if function.trigger != "http" }

  apis = toset([
    "artifactregistry", "cloudkms", "cloudscheduler", "compute", "eventarc", "firestore", "logging", "monitoring", "pubsub", "run", "secretmanager", "storage",
  ])

  settings = merge({
    TRUST_STORE         = "firestore://${var.project}/${google_firestore_database.documents.name}"
    TRUST_KEYS          = "gcpkms:${google_kms_crypto_key.master.id}"
    TRUST_QUEUE         = "pubsub:${google_pubsub_topic.sightings.id}"
    TRUST_UPLOAD_BUCKET = google_storage_bucket.uploads.name
    TRUST_DOMAIN        = var.domain
    TRUST_BEHIND_TLS    = "true" # Cloud Run and the load balancer are reached over TLS only
  }, var.settings)
}

resource "google_project_service" "api" {
  for_each           = local.apis
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}
