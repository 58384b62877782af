# The deployment.

variable "name" {
  description = "What every name begins with; null takes stack.json's, `streamer`. Deployments in one account need different names."
  type        = string
  default     = null

  validation {
    condition     = var.name == null || can(regex("^[a-z][a-z0-9-]{0,29}$", var.name))
    error_message = "name has 1 to 30 characters: lower-case letters, digits and hyphens, a letter first."
  }
}

variable "stage" {
  description = "The stage's name. It is the dimension `stage` of all metrics too, so deployments in one Region need different ones to be told apart there."
  type        = string
  default     = "production"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,128}$", var.stage))
    error_message = "stage has 1 to 128 characters: letters, digits, hyphens and underscores."
  }
}

variable "tags" {
  description = "Tags for everything that can have some, beside the provider's default_tags."
  type        = map(string)
  default     = {}
}

variable "packages" {
  description = "The folder with the functions' zips, as `streamer package` writes them; null is `target/lambda` of this checkout."
  type        = string
  default     = null
}

variable "architecture" {
  description = "What the packages were built for: `arm64` or `x86_64`."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture is arm64 or x86_64."
  }
}

variable "deletion_protection" {
  description = "Whether the connection table is protected from deletion."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "A KMS key of yours for the queues and the table; null leaves it to keys that SQS and DynamoDB own."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[^:]+:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn is a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID. Policies need the key's, not an alias's."
  }
}

variable "require_tls" {
  description = "Whether the queues refuse calls without TLS. Off only for emulators that speak plain HTTP."
  type        = bool
  default     = true
}

variable "queue_policy_documents" {
  description = "Policies, as JSON, that are put into the outbound queue's: whoever sends from another account or service is allowed there. A policy of your own for the queue would displace the module's."
  type        = list(string)
  default     = []
}

# The API.

variable "routes" {
  description = "Routes beside `$connect` and `$disconnect`, by route key: the functions that get what clients send, such as a router behind `$default`."
  type = map(object({
    function_name = string
    invoke_arn    = string
  }))
  default = {}

  validation {
    condition     = length(setintersection(keys(var.routes), ["$connect", "$disconnect"])) == 0
    error_message = "The routes $connect and $disconnect are Streamer's."
  }
}

variable "management_endpoint" {
  description = "Where the functions post to connections, with `{api}` for the API's id and `{stage}` for the stage's name; null is the API's default endpoint. To be set behind a custom domain whose API has no default endpoint, and for emulators."
  type        = string
  default     = null

  validation {
    condition     = var.management_endpoint == null || can(regex("^https?://[^/?#]+(/[^?#]*)?$", var.management_endpoint))
    error_message = "management_endpoint is an http or https URL without a query."
  }
}

variable "management_endpoint_aliases" {
  description = "Other URLs at which the same API and stage are or were reachable. Name the old one here for 2 h 10 min after a change of management_endpoint: rows of open connections hold it until then."
  type        = list(string)
  default     = null

  validation {
    condition     = alltrue([for alias in coalesce(var.management_endpoint_aliases, []) : can(regex("^https?://[^/?#,]+(/[^?#,]*)?$", alias))]) && try(length(var.management_endpoint_aliases) > 0, true)
    error_message = "management_endpoint_aliases are http or https URLs without a query: set at least one, or leave the variable out."
  }
}

variable "disable_default_endpoint" {
  description = "Whether the API answers at your custom domain only; management_endpoint then says where to post."
  type        = bool
  default     = false
}

variable "throttling" {
  description = "How many messages and connects of clients a route of the stage takes a second, and at once. By default what the account has in newer Regions; older ones have four times as much. A stage's limits cannot exceed the account's."
  type = object({
    rate  = optional(number, 2500)
    burst = optional(number, 1250)
  })
  default = {}

  validation {
    condition     = var.throttling.rate > 0 && var.throttling.burst > 0
    error_message = "throttling's rate and burst are above 0, which would refuse everything."
  }
}

# Who may connect.

variable "jwt_public_key" {
  description = "The key that tokens are verified with, a PEM: RSA, EC or Ed25519."
  type        = string
  default     = null

  validation {
    condition     = var.jwt_public_key != null || var.jwt_jwks_url != null || var.jwt_issuer != null
    error_message = "Nothing verifies tokens: set jwt_public_key, jwt_jwks_url, or jwt_issuer."
  }

  validation {
    condition     = var.jwt_public_key == null || var.jwt_jwks_url == null
    error_message = "Set jwt_public_key or jwt_jwks_url, not both."
  }

  validation {
    condition     = var.jwt_public_key != null || var.jwt_jwks_url != null || var.jwt_issuer == null || can(regex("^https://[^?#]+$", var.jwt_issuer))
    error_message = "jwt_issuer is to find the keys, but is no https URL without a query: set it to one, or set jwt_public_key or jwt_jwks_url."
  }

  validation {
    condition     = var.jwt_public_key == null || can(regex("-----BEGIN (RSA )?PUBLIC KEY-----", var.jwt_public_key))
    error_message = "jwt_public_key is a PEM, -----BEGIN PUBLIC KEY-----."
  }
}

variable "jwt_jwks_url" {
  description = "Where the issuer's JWK set is, an https URL, in place of jwt_public_key."
  type        = string
  default     = null

  validation {
    condition     = var.jwt_jwks_url == null || can(regex("^https://", var.jwt_jwks_url))
    error_message = "jwt_jwks_url is an https URL."
  }
}

variable "jwt_issuer" {
  description = "The `iss` that a token must have. Where neither jwt_public_key nor jwt_jwks_url is set, an https URL, and the keys are those of its OpenID Connect configuration."
  type        = string
  default     = null

  validation {
    condition     = var.jwt_issuer == null || try(length(var.jwt_issuer) > 0, false)
    error_message = "jwt_issuer is not empty: leave it out where it is not wanted."
  }
}

variable "jwt_audience" {
  description = "The `aud` that a token must have; null refuses a token that has one."
  type        = string
  default     = null

  validation {
    condition     = var.jwt_audience == null || try(length(var.jwt_audience) > 0, false)
    error_message = "jwt_audience is not empty: leave it out where it is not wanted."
  }
}

variable "allowed_tenants" {
  description = "The tenants that may connect; null lets all in."
  type        = list(string)
  default     = null

  validation {
    condition     = var.allowed_tenants == null || (length(coalesce(var.allowed_tenants, [])) > 0 && alltrue([for tenant in coalesce(var.allowed_tenants, []) : can(regex("^[^,]+$", tenant))]))
    error_message = "allowed_tenants names at least one tenant, and none has a comma."
  }
}

variable "required_permission" {
  description = "One of the token's `permissions` that is needed to connect; null needs none."
  type        = string
  default     = null

  validation {
    condition     = var.required_permission == null || try(length(var.required_permission) > 0, false)
    error_message = "required_permission is not empty: leave it out where it is not wanted."
  }
}

variable "max_connections_per_user" {
  description = "How many connections a user may have: the oldest is closed for the newest. Null is any number."
  type        = number
  default     = null

  validation {
    condition     = var.max_connections_per_user == null || contains(range(1, 1001), coalesce(var.max_connections_per_user, 1))
    error_message = "max_connections_per_user is a whole number from 1 to 1000."
  }
}

variable "expire_with_token" {
  description = "Whether a connection's row expires with its token, if that is earlier; null leaves it to the function's default, which is that it does not."
  type        = bool
  default     = null
}

# The worker and its queues.

variable "fifo" {
  description = "Whether the queues are FIFO queues. Changing it makes new queues: drain the old ones first."
  type        = bool
  default     = false
}

variable "worker_timeout_seconds" {
  description = "The worker's timeout; null takes stack.json's."
  type        = number
  default     = null

  validation {
    condition     = var.worker_timeout_seconds == null || try(floor(var.worker_timeout_seconds) == var.worker_timeout_seconds && var.worker_timeout_seconds >= 1 && var.worker_timeout_seconds <= 900, false)
    error_message = "worker_timeout_seconds is a whole number, 1 to 900."
  }
}

variable "worker_memory_mb" {
  description = "The worker's memory; null takes stack.json's."
  type        = number
  default     = null

  validation {
    condition     = var.worker_memory_mb == null || try(floor(var.worker_memory_mb) == var.worker_memory_mb && var.worker_memory_mb >= 128 && var.worker_memory_mb <= 10240, false)
    error_message = "worker_memory_mb is a whole number, 128 to 10240."
  }
}

variable "connect_grace_seconds" {
  description = "How young a connection may be for a 410 to mean that it is not there yet; null leaves it to the worker's default."
  type        = number
  default     = null

  validation {
    condition     = var.connect_grace_seconds == null || try(floor(var.connect_grace_seconds) == var.connect_grace_seconds && var.connect_grace_seconds >= 0 && var.connect_grace_seconds <= 3600, false)
    error_message = "connect_grace_seconds is a whole number, 0 to 3600."
  }
}

variable "away_grace_seconds" {
  description = "How long after a message's first receipt its user may be reconnecting; null leaves it to the worker's default."
  type        = number
  default     = null

  validation {
    condition     = var.away_grace_seconds == null || try(floor(var.away_grace_seconds) == var.away_grace_seconds && var.away_grace_seconds >= 0 && var.away_grace_seconds <= 3600, false)
    error_message = "away_grace_seconds is a whole number, 0 to 3600."
  }
}

variable "max_age_seconds" {
  description = "How long after its first receipt a message is tried. No connection lives longer than 2 h."
  type        = number
  default     = 7800

  validation {
    condition     = floor(var.max_age_seconds) == var.max_age_seconds && var.max_age_seconds >= 1 && var.max_age_seconds <= 259200
    error_message = "max_age_seconds is a whole number, 1 to 259200."
  }
}

variable "visibility_timeout_seconds" {
  description = "How long a message that a worker holds is hidden from the others, at least six times the worker's timeout; null takes stack.json's."
  type        = number
  default     = null

  validation {
    condition     = var.visibility_timeout_seconds == null || try(floor(var.visibility_timeout_seconds) == var.visibility_timeout_seconds && var.visibility_timeout_seconds <= 43200, false)
    error_message = "visibility_timeout_seconds is a whole number, at most SQS's 43200."
  }
}

variable "retention_seconds" {
  description = "How long the outbound queue keeps a message; null takes stack.json's."
  type        = number
  default     = null

  validation {
    condition     = var.retention_seconds == null || try(floor(var.retention_seconds) == var.retention_seconds && var.retention_seconds >= 60 && var.retention_seconds <= 1209600, false)
    error_message = "retention_seconds is a whole number, 60 to 1209600, SQS's maximum of 14 days."
  }
}

variable "dead_letter_retention_seconds" {
  description = "How long a dead letter is kept, longer than a message; null takes stack.json's."
  type        = number
  default     = null

  validation {
    condition     = var.dead_letter_retention_seconds == null || try(floor(var.dead_letter_retention_seconds) == var.dead_letter_retention_seconds && var.dead_letter_retention_seconds >= 60 && var.dead_letter_retention_seconds <= 1209600, false)
    error_message = "dead_letter_retention_seconds is a whole number, 60 to 1209600, SQS's maximum of 14 days."
  }
}

variable "max_message_bytes" {
  description = "What the queues take at most, body and attributes together. 256 KiB hold whatever the worker delivers. SQS takes up to 1048576; provider 5.100 does not."
  type        = number
  default     = 262144

  validation {
    condition     = var.max_message_bytes >= 262144 && var.max_message_bytes <= 1048576
    error_message = "max_message_bytes is 262144 to 1048576: less does not hold a payload of 128 KiB and all that may stand around it."
  }
}

variable "batch_size" {
  description = "How many messages an invocation gets at most; null takes stack.json's. More than 10 need a batching window and a standard queue."
  type        = number
  default     = null

  validation {
    condition     = var.batch_size == null || try(floor(var.batch_size) == var.batch_size && var.batch_size >= 1 && var.batch_size <= 10000, false)
    error_message = "batch_size is a whole number, 1 to 10000."
  }
}

variable "batching_window_seconds" {
  description = "How long Lambda waits for a batch to fill; null takes stack.json's, which is not at all."
  type        = number
  default     = null

  validation {
    condition     = var.batching_window_seconds == null || contains(range(0, 301), coalesce(var.batching_window_seconds, 0))
    error_message = "batching_window_seconds is a whole number from 0 to 300."
  }
}

# The pace.

variable "requests_per_second" {
  description = "How many of the account's requests a second to API Gateway Streamer may use; null takes stack.json's, 5000. The account has 10000 in a Region by default, 2500 in newer Regions, for all its APIs there. Lambda's maximum concurrency, the worker's reserved concurrency and its posts a second follow from it."
  type        = number
  default     = null

  validation {
    condition     = var.requests_per_second == null || try(floor(var.requests_per_second) == var.requests_per_second && var.requests_per_second >= 2, false)
    error_message = "requests_per_second is a whole number of at least 2: a mapping has a maximum concurrency of 2 or more, and each environment a post a second."
  }
}

variable "provisioned_pollers" {
  description = "Pollers that are always there, in place of a maximum concurrency: each makes up to 10 invocations at the same time. Null has none."
  type = object({
    minimum = number
    maximum = number
  })
  default = null

  # https://docs.aws.amazon.com/lambda/latest/api/API_ProvisionedPollerConfig.html
  validation {
    condition     = var.provisioned_pollers == null || try(var.provisioned_pollers.minimum >= 2 && var.provisioned_pollers.minimum <= 200 && var.provisioned_pollers.maximum >= var.provisioned_pollers.minimum && var.provisioned_pollers.maximum <= 2000, false)
    error_message = "provisioned_pollers has a minimum of 2 to 200, and a maximum from there to 2000."
  }
}

variable "reserved_concurrency" {
  description = "How many invocations of the worker the account reserves; null is as many as the mapping makes, -1 reserves none. An account with 10 in all, as new ones have, can reserve none."
  type        = number
  default     = null

  validation {
    condition     = var.reserved_concurrency == null || coalesce(var.reserved_concurrency, -1) == -1 || try(floor(var.reserved_concurrency) == var.reserved_concurrency && var.reserved_concurrency >= 2, false)
    error_message = "reserved_concurrency is -1, or a whole number of at least 2, the least maximum concurrency of a mapping."
  }
}

# What is watched.

variable "log_level" {
  description = "`error`, `warn`, `info`, `debug`, `trace`, or `off`, which stops metrics too; null leaves it to the functions' default, `info`."
  type        = string
  default     = null

  validation {
    condition     = var.log_level == null || contains(["error", "warn", "info", "debug", "trace", "off"], coalesce(var.log_level, "-"))
    error_message = "log_level is error, warn, info, debug, trace or off."
  }
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one that CloudWatch Logs knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "tracing" {
  description = "Whether X-Ray traces the functions."
  type        = bool
  default     = true
}

variable "alarm_topic_arn" {
  description = "The SNS topic that alarms go to, and their ends; null has alarms that only show."
  type        = string
  default     = null
}

variable "alarms" {
  description = "From where on alarms go off."
  type = object({
    oldest_message_seconds  = optional(number, 300)
    refused_connect_percent = optional(number, 20)
    refused_connect_minimum = optional(number, 20)
    errors                  = optional(number, 0)
    throttles               = optional(number, 0)
    delivery_latency_p99_ms = optional(number, 10000)
  })
  default = {}

  validation {
    condition     = var.alarms.refused_connect_percent > 0 && var.alarms.refused_connect_percent <= 100 && var.alarms.refused_connect_minimum >= 1
    error_message = "refused_connect_percent is above 0 and at most 100, refused_connect_minimum at least 1."
  }
}
