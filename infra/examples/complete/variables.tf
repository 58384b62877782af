variable "region" {
  description = "Where to deploy."
  type        = string
  default     = "eu-central-1"
}

variable "packages" {
  description = "The folder with the functions' zips; null is `target/lambda` of this checkout."
  type        = string
  default     = null
}

variable "architecture" {
  description = "What the packages and the router were built for: `arm64` or `x86_64`."
  type        = string
  default     = "arm64"
}

variable "router_zip" {
  description = "The zip of the router, a Lambda with a `bootstrap`."
  type        = string
}

variable "jwt_issuer" {
  description = "The issuer of the clients' tokens, an https URL with an OpenID Connect configuration."
  type        = string
}

variable "jwt_audience" {
  description = "The `aud` that a token must have."
  type        = string
  default     = "streamer"
}
