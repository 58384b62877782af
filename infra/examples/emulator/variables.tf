variable "endpoint_url" {
  description = "URL of the emulator."
  type        = string
  default     = "http://127.0.0.1:4566"
}

variable "management_origin" {
  description = "Origin at which the functions reach `@connections`, if it differs from endpoint_url: for functions in containers, and for tests with a proxy in between."
  type        = string
  default     = null
}

variable "name" {
  description = "Prefix of all names."
  type        = string
  default     = "streamer"
}

variable "packages" {
  description = "Folder with the functions' zip files; null uses `target/lambda` of this checkout."
  type        = string
  default     = null
}

variable "architecture" {
  description = "Architecture of the packages and of the emulator's machine: `arm64` or `x86_64`."
  type        = string
  default     = "x86_64"
}

variable "router_zip" {
  description = "Zip file of the router, a Lambda function with a `bootstrap` binary."
  type        = string
}

variable "jwt_public_key" {
  description = "Public key that verifies tokens, as PEM."
  type        = string
}

variable "jwt_issuers" {
  description = "Accepted values of a token's `iss`; null accepts any."
  type        = list(string)
  default     = null
}

variable "worker_timeout_seconds" {
  description = "Timeout of the worker."
  type        = number
  default     = 2
}

variable "visibility_timeout_seconds" {
  description = "Visibility timeout of the outbound queue, at least six times the worker's timeout."
  type        = number
  default     = 12
}

variable "connect_grace_seconds" {
  description = "Age of a connection below which a 410 means that it is not yet connected."
  type        = number
  default     = 1
}

variable "max_connections_per_user" {
  description = "Maximum number of connections of a user; null sets no limit."
  type        = number
  default     = null
}
