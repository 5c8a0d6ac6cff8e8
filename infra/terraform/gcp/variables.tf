variable "project" {
  type        = string
  description = "The Google Cloud project."
}

variable "region" {
  type        = string
  description = "The region of all resources, for example europe-west3."
}

variable "image" {
  type        = string
  description = "The container image of this release, by digest: built with infra/container/Dockerfile."
}

variable "api_host" {
  type        = string
  description = "The host name of the API. Its A record must point at the output `address`, before its certificate is issued."
}

variable "domain" {
  type        = string
  description = "The platform domain (TRUST_DOMAIN): hosts are <orgId>.messaging.<domain>."
}

variable "name" {
  type        = string
  default     = "trust"
  description = "The prefix of all names."
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,8}$", var.name)) # a service account's id has 30 characters at most
    error_message = "name takes 2 to 9 of a-z and 0-9, a letter first."
  }
}

variable "upload_writers" {
  type        = map(list(string))
  default     = {}
  description = "Organization id -> members (like serviceAccount:…) that may put objects below that organization's prefixes, and nowhere else."
  validation {
    condition     = alltrue([for org in keys(var.upload_writers) : can(regex("^[a-z0-9]{6}$", org))])
    error_message = "upload_writers: an organization id is six of a-z and 0-9."
  }
}

variable "settings" {
  type        = map(string)
  default     = {}
  description = "Further TRUST_… settings of every function, like TRUST_OIDC_ISSUER."
  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "TRUST_")])
    error_message = "settings: each name begins with TRUST_."
  }
}

variable "webhook" {
  type        = string
  default     = null
  description = "The receiver of expiry reports and withdrawals (TRUST_WEBHOOK). Its secret is added to Secret Manager by hand, so that no state contains it."
}

variable "alarm_email" {
  type        = string
  default     = null
  description = "The receiver of alarms."
}

variable "report_at" {
  type        = string
  default     = "0 6 * * *"
  description = "The schedule of expiryReport, in UTC."
}

variable "most_instances" {
  type        = number
  default     = 20
  description = "The maximum of instances per function."
}

variable "warm_instances" {
  type        = number
  default     = 0
  description = "Instances of verifyClient that are kept started, so that devices do not wait for a start."
}

variable "protect" {
  type        = bool
  default     = true
  description = "Protect the database and the uploads against deletion."
}
