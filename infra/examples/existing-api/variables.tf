variable "step" {
  description = "Step of the migration: 0 without Streamer, 1 posts through the queue, 2 keeps Streamer's table beside the chat's, 3 addresses users."
  type        = number
  default     = 1

  validation {
    condition     = contains([0, 1, 2, 3], var.step)
    error_message = "step must be 0, 1, 2 or 3."
  }
}

variable "region" {
  description = "Region to deploy to."
  type        = string
  default     = "eu-central-1"
}

variable "functions_zip" {
  description = "Zip file of the chat's functions, the Python files in `functions`."
  type        = string
}

variable "packages" {
  description = "Folder with Streamer's zip files; null uses `target/lambda` of this checkout."
  type        = string
  default     = null
}

variable "architecture" {
  description = "Architecture that Streamer's packages were built for: `arm64` or `x86_64`."
  type        = string
  default     = "arm64"
}

variable "jwt_issuers" {
  description = "Issuers of the clients' tokens, from step 2 on. Without jwt_public_key, https URLs with OpenID Connect configurations."
  type        = list(string)
  default     = null
}

variable "jwt_audiences" {
  description = "Accepted values of a token's `aud`, from step 2 on. Required without jwt_public_key."
  type        = list(string)
  default     = null
}

variable "jwt_public_key" {
  description = "Public key that verifies tokens, as PEM; null discovers the issuers' keys."
  type        = string
  default     = null
}

variable "tenant" {
  description = "Tenant of all users: the `tenant_id` of their tokens."
  type        = string
  default     = "chat"
}
