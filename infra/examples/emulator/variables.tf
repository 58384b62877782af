variable "endpoint_url" {
  description = "Where the emulator is."
  type        = string
  default     = "http://127.0.0.1:4566"
}

variable "management_origin" {
  description = "Where the functions find `@connections`, where that is another place than endpoint_url: for functions in containers, and for tests that stand in between."
  type        = string
  default     = null
}

variable "name" {
  description = "What every name begins with."
  type        = string
  default     = "streamer"
}

variable "packages" {
  description = "The folder with the functions' zips; null is `target/lambda` of this checkout."
  type        = string
  default     = null
}

variable "architecture" {
  description = "What the packages were built for, and what the emulator runs on: `arm64` or `x86_64`."
  type        = string
  default     = "x86_64"
}

variable "router_zip" {
  description = "The zip of the router, a Lambda with a `bootstrap`."
  type        = string
}

variable "jwt_public_key" {
  description = "The key that tokens are verified with, a PEM."
  type        = string
}

variable "jwt_issuer" {
  description = "The `iss` that a token must have; null takes any."
  type        = string
  default     = null
}

variable "worker_timeout_seconds" {
  description = "The worker's timeout."
  type        = number
  default     = 2
}

variable "visibility_timeout_seconds" {
  description = "How long a message that a worker holds is hidden from the others, at least six times the worker's timeout."
  type        = number
  default     = 12
}

variable "connect_grace_seconds" {
  description = "How young a connection may be for a 410 to mean that it is not there yet."
  type        = number
  default     = 1
}

variable "max_connections_per_user" {
  description = "How many connections a user may have; null is any number."
  type        = number
  default     = null
}
