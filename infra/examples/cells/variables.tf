variable "regions" {
  description = "Regions of the two cells. The topic is in the first."
  type = object({
    first  = string
    second = string
  })
  default = {
    first  = "eu-central-1"
    second = "eu-west-1"
  }
}

variable "name" {
  description = "Prefix of all names, at most 20 characters."
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

variable "account_concurrency" {
  description = "Lambda's quota of concurrent executions in each Region."
  type        = number
  default     = 1000
}

variable "requests_per_second" {
  description = "Streamer's share of API Gateway's quota in each Region. Cells of one account in one Region share the quota: divide it."
  type        = number
  default     = 5000
}

variable "alarm_topic_arns" {
  description = "SNS topics of the alarms in each Region."
  type = object({
    first  = optional(string)
    second = optional(string)
  })
  default = {}
}
