# One base URL before all functions: a global load balancer that has every route.
resource "google_compute_global_address" "api" {
  name       = var.name
  depends_on = [google_project_service.api]
}

resource "google_compute_managed_ssl_certificate" "api" {
  name = "${var.name}-${substr(sha256(var.api_host), 0, 8)}" # another host needs another name, because a certificate cannot be changed
  managed {
    domains = [var.api_host]
  }
  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_ssl_policy" "api" {
  name            = var.name
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_region_network_endpoint_group" "function" {
  for_each              = local.http
  name                  = "${var.name}-${each.value.slug}"
  region                = var.region
  network_endpoint_type = "SERVERLESS"
  cloud_run {
    service = google_cloud_run_v2_service.function[each.key].name
  }
}

resource "google_compute_backend_service" "function" {
  for_each              = local.http
  name                  = "${var.name}-${each.value.slug}"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  protocol              = "HTTPS"
  backend {
    group = google_compute_region_network_endpoint_group.function[each.key].id
  }
  log_config {
    enable      = true
    sample_rate = 1
  }
}

locals {
  routes = flatten([for name, function in local.http : [for route in function.routes : merge(route, { function = name })]])
}

resource "google_compute_url_map" "api" {
  name            = var.name
  default_service = google_compute_backend_service.function["health"].id # answers with 404 or 405 as a problem document
  host_rule {
    hosts        = ["*"]
    path_matcher = "functions"
  }
  path_matcher {
    name            = "functions"
    default_service = google_compute_backend_service.function["health"].id
    dynamic "route_rules" {
      for_each = local.routes
      content {
        # Paths without a parameter come first, because …/active is no certificate's id. {*rest} (the rest of a path) comes last.
        priority = route_rules.key + 1 + (strcontains(route_rules.value.path, "{") ? 1000 : 0) + (strcontains(route_rules.value.path, "{*") ? 1000 : 0)
        service  = google_compute_backend_service.function[route_rules.value.function].id
        match_rules {
          full_path_match     = strcontains(route_rules.value.path, "{") ? null : route_rules.value.path
          path_template_match = strcontains(route_rules.value.path, "{") ? replace(replace(route_rules.value.path, "/\\{\\*(\\w+)\\}/", "{$1=**}"), "/\\{(\\w+)\\}/", "{$1=*}") : null
          header_matches {
            header_name = ":method"
            exact_match = route_rules.value.method
          }
        }
      }
    }
  }
}

resource "google_compute_target_https_proxy" "api" {
  name             = var.name
  url_map          = google_compute_url_map.api.id
  ssl_certificates = [google_compute_managed_ssl_certificate.api.id]
  ssl_policy       = google_compute_ssl_policy.api.id
}

resource "google_compute_global_forwarding_rule" "api" {
  name                  = var.name
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.api.id
  port_range            = "443"
  target                = google_compute_target_https_proxy.api.id
}
