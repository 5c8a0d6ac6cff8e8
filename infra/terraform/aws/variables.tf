variable "region" {
  type        = string
  description = "Where everything is made."
}

variable "name" {
  type        = string
  default     = "trust"
  description = "Begins the name of everything that is made."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "name takes 2 to 21 of a-z, 0-9 and -, a letter first."
  }
}

variable "domain" {
  type        = string
  description = "The platform domain (TRUST_DOMAIN): hosts are <orgId>.messaging.<domain>."
}

variable "upload_writers" {
  type        = map(list(string))
  default     = {}
  description = "Organization id -> ARNs of the AWS principals that may put objects below that organization's prefixes, and nowhere else."
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
  description = "Where expiryReport sends what ends soon (TRUST_WEBHOOK)."
}

variable "webhook_secret" {
  type        = string
  default     = null
  sensitive   = true
  description = "Signs what is sent there (TRUST_WEBHOOK_SECRET)."
}

variable "alarm_email" {
  type        = string
  default     = null
  description = "Who is told of an alarm."
}

variable "report_at" {
  type        = string
  default     = "cron(0 6 * * ? *)"
  description = "When expiryReport runs, UTC."
}

variable "log_days" {
  type        = number
  default     = 90
  description = "How long logs are kept."
}

variable "requests_per_second" {
  type        = number
  default     = 1000
  description = "Of the whole API; more is answered 429. Bursts may be twice that."
}

variable "packages" {
  type        = string
  default     = null
  description = "The folder that `python -m infra.package` wrote; dist/aws of this checkout where not given."
}

variable "python" {
  type        = string
  default     = "3.13"
  description = "The Python that the packages were made for."
}

variable "architecture" {
  type        = string
  default     = "x86_64"
  description = "The machine that the packages were made for: x86_64 or arm64."
}

variable "protect" {
  type        = bool
  default     = true
  description = "Keep table and buckets from being destroyed with what is in them. To take a deployment down: apply with false, then destroy."
}

variable "local" {
  type        = bool
  default     = false
  description = "For an emulator of AWS on this machine only: leaves out what it cannot keep (docs/decisions/0063)."
}
