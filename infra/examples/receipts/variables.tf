variable "region" {
  description = "Region to deploy to."
  type        = string
  default     = "eu-central-1"
}

variable "name" {
  description = "Prefix of all names, and the source of the events."
  type        = string
  default     = "streamer"
}

variable "packages" {
  description = "Folder with the functions' zip files; null uses `target/lambda` of this checkout."
  type        = string
  default     = null
}

variable "architecture" {
  description = "Architecture that the packages were built for: `arm64` or `x86_64`."
  type        = string
  default     = "arm64"
}

variable "jwt_issuers" {
  description = "Issuers of the clients' tokens, https URLs with OpenID Connect configurations."
  type        = list(string)
}

variable "jwt_audiences" {
  description = "Accepted values of a token's `aud`."
  type        = list(string)
  default     = ["streamer"]
}
