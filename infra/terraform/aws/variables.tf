variable "region" {
  type        = string
  description = "The region of all resources."
}

variable "name" {
  type        = string
  default     = "trust"
  description = "The prefix of all names."
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
  description = "The receiver of expiry reports and withdrawals (TRUST_WEBHOOK)."
}

variable "webhook_secret" {
  type        = string
  default     = null
  sensitive   = true
  description = "The secret that signs these messages (TRUST_WEBHOOK_SECRET)."
}

variable "alarm_email" {
  type        = string
  default     = null
  description = "The receiver of alarms."
}

variable "report_at" {
  type        = string
  default     = "cron(0 6 * * ? *)"
  description = "The schedule of expiryReport, in UTC."
}

variable "log_days" {
  type        = number
  default     = 90
  description = "The retention of logs, in days."
}

variable "requests_per_second" {
  type        = number
  default     = 1000
  description = "The limit of the whole API; requests above it are answered with 429. Bursts may be twice as large."
}

variable "packages" {
  type        = string
  default     = null
  description = "The folder that `python -m infra.package` wrote; by default dist/aws of this checkout."
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
  description = "Protect the table and the uploads against deletion. To remove a deployment: apply with false, then destroy."
}

variable "local" {
  type        = bool
  default     = false
  description = "For an emulator of AWS on this machine only: leaves out what the emulator does not support (docs/decisions/0063)."
}
