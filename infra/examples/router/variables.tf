variable "region" {
  description = "Region to deploy to."
  type        = string
  default     = "eu-central-1"
}

variable "name" {
  description = "Prefix of all names."
  type        = string
  default     = "streamer"
}

variable "packages" {
  description = "Folder with the functions' zip files, written by `streamer package`; null uses `target/lambda` of this checkout."
  type        = string
  default     = null
}

variable "router_zip" {
  description = "Zip file of the router, written by `streamer package --router`; null uses `target/lambda/router.zip` of this checkout."
  type        = string
  default     = null
}

variable "architecture" {
  description = "Architecture that the functions and the router were packaged for: `arm64` or `x86_64`."
  type        = string
  default     = "arm64"
}

variable "jwt_issuers" {
  description = "Accepted values of a token's `iss`. Without jwt_public_key, https URLs whose OpenID Connect configurations provide the keys."
  type        = list(string)
}

variable "jwt_public_key" {
  description = "Public key that verifies tokens, as PEM; null fetches the keys of jwt_issuers."
  type        = string
  default     = null
}

variable "jwt_audiences" {
  description = "Accepted values of a token's `aud`."
  type        = list(string)
  default     = ["streamer"]
}
