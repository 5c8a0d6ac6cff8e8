resource "google_storage_bucket" "uploads" {
  name                        = "${var.project}-${var.name}-uploads"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.protect
  soft_delete_policy {
    retention_duration_seconds = 0 # onUpload deletes an imported bundle, which contains a private key, finally
  }
  versioning {
    enabled = false # each object has a generation, and onUpload names the generation
  }
  lifecycle_rule { # a refused upload stays for a day, for inspection
    condition {
      age = 1
    }
    action {
      type = "Delete"
    }
  }
  depends_on = [google_project_service.api]
}

# Each organization's writers may create objects below its own prefixes, and nothing else.
resource "google_storage_bucket_iam_member" "writer" {
  for_each = merge([for org, members in var.upload_writers : { for member in members : "${org} ${member}" => { org = org, member = member } }]...)
  bucket   = google_storage_bucket.uploads.name
  role     = "roles/storage.objectCreator"
  member   = each.value.member
  condition {
    title      = "${each.value.org} only"
    expression = join(" || ", [for kind in ["ca", "server", "csr"] : "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.uploads.name}/objects/${each.value.org}/${kind}/\")"])
  }
}
