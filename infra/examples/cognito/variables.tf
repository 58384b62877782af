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

variable "tenant" {
  description = "Tenant of all users, who then connect with access tokens. Null reads each user's tenant from the attribute `custom:tenant_id`, and users connect with ID tokens."
  type        = string
  default     = "acme"
}
