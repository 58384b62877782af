# Deployment

variable "name" {
  description = "Prefix of all names; null uses `streamer`, from stack.json. Deployments in one account need different names."
  type        = string
  default     = null

  validation {
    condition     = var.name == null || can(regex("^[a-z][a-z0-9-]{0,29}$", var.name))
    error_message = "name must have 1 to 30 characters (lower-case letters, digits, hyphens) and begin with a letter."
  }
}

variable "stage" {
  description = "Name of the stage, and the dimension `stage` of all metrics, so deployments in one Region need different stages to have separate metrics. Beside an `api`, it is the dimension only. Null uses `api.stage`, or `production`."
  type        = string
  default     = null

  validation {
    condition     = var.stage == null || can(regex("^[A-Za-z0-9_-]{1,128}$", var.stage))
    error_message = "stage must have 1 to 128 characters: letters, digits, hyphens or underscores."
  }
}

variable "tags" {
  description = "Tags for all resources that support them, in addition to the provider's default_tags."
  type        = map(string)
  default     = {}
}

variable "packages" {
  description = "Folder with the functions' zip files, written by `streamer package`; null uses `target/lambda` of this checkout."
  type        = string
  default     = null
}

variable "architecture" {
  description = "Architecture that the packages were built for: `arm64` or `x86_64`."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture must be arm64 or x86_64."
  }
}

variable "deletion_protection" {
  description = "Whether the queues and the tables are protected from deletion: by `terraform destroy`, and by a change of name or fifo or one that removes a table or the receipts queue. Set false and apply before you destroy."
  type        = bool
  default     = true
}

variable "abandon" {
  description = "Names of queues and tables that may be deleted, with what they hold, while deletion_protection protects the others. Apply before the change that deletes them."
  type        = list(string)
  default     = []
}

variable "kms_key_arn" {
  description = "ARN of a customer managed KMS key for the queues and the tables; null uses keys that SQS and DynamoDB own."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[^:]+:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key, arn:aws:kms:REGION:ACCOUNT:key/ID. IAM policies do not accept the ARN of an alias."
  }
}

variable "require_tls" {
  description = "Whether the queues deny calls without TLS. Set false only for emulators that use plain HTTP."
  type        = bool
  default     = true
}

variable "queue_policy_documents" {
  description = "Policy documents, as JSON, to merge into the outbound queue's policy, for example to let other accounts or services send. SNS subscriptions need raw_message_delivery = true and EventBridge targets input_path = \"$.detail\", since a message in an envelope becomes a dead letter. A separate aws_sqs_queue_policy would replace the module's policy."
  type        = list(string)
  default     = []
}

# API

variable "api" {
  description = "WebSocket API that exists in this account and Region, with the stage that its clients use. The module then creates no API and no stage, and no functions for `$connect` and `$disconnect` unless connect and disconnect are set. management_endpoint is the URL at which the functions post to connections; null uses the API's default endpoint. Null creates an API."
  type = object({
    id                  = string
    stage               = string
    management_endpoint = optional(string)
  })
  default = null

  validation {
    condition     = var.api == null || try(can(regex("^[a-z0-9]+$", var.api.id)) && can(regex("^[A-Za-z0-9_-]{1,128}$", var.api.stage)), false)
    error_message = "api.id must be the id of an API, such as a1b2c3d4e5, and api.stage the name of one of its stages."
  }

  validation {
    condition     = try(var.api.management_endpoint, null) == null || can(regex("^https?://[^/?#]+(/[^?#]*)?$", var.api.management_endpoint))
    error_message = "api.management_endpoint must be an http or https URL without a query."
  }

  validation {
    condition     = var.api == null || (var.management_endpoint == null && var.route_selection_expression == null && var.throttling == null && !var.disable_default_endpoint)
    error_message = "management_endpoint, route_selection_expression, throttling and disable_default_endpoint are settings of an API that the module creates: omit them beside an api that exists, and set api.management_endpoint instead of management_endpoint."
  }
}

variable "connect" {
  description = "Whether to create the function that verifies clients and writes rows; null creates it unless `api` is set. An API that the module creates admits every client if it has neither this function nor a route `$connect` of yours."
  type        = bool
  default     = null
}

variable "disconnect" {
  description = "Whether to create the function that removes rows; null creates it unless `api` is set."
  type        = bool
  default     = null
}

variable "connect_route" {
  description = "Whether the module creates the route `$connect` for its function. Set false if a function of yours has this route and invokes it."
  type        = bool
  default     = true
}

variable "disconnect_route" {
  description = "Whether the module creates the route `$disconnect` for its function. Set false if a function of yours has this route and invokes it."
  type        = bool
  default     = true
}

variable "table" {
  description = "Whether to create the connection table; null creates it with the functions connect and disconnect. Without it, only messages for connections are delivered. With it alone, functions of yours write the rows."
  type        = bool
  default     = null

  validation {
    condition     = coalesce(var.table, true) || !(coalesce(var.connect, var.api == null) || coalesce(var.disconnect, var.api == null))
    error_message = "The functions connect and disconnect need the connection table: omit table, or set connect and disconnect to false."
  }
}

variable "authorizer" {
  description = "Lambda (REQUEST) authorizer of the route `$connect`: the id of one that the API has, or the ARN of its function, for which the module creates it. Without identity_sources, such as `route.request.querystring.token`, API Gateway invokes it for every client. The function connect still verifies a token behind it, unless identity_source is `authorizer`."
  type = object({
    id = optional(string)
    function = optional(object({
      arn              = string
      identity_sources = optional(list(string))
    }))
  })
  default = null

  validation {
    condition     = var.authorizer == null || (try(var.authorizer.id, null) == null) != (try(var.authorizer.function, null) == null)
    error_message = "authorizer needs either id or function."
  }

  validation {
    condition     = var.authorizer == null || (coalesce(var.connect, var.api == null) && var.connect_route) || contains(keys(var.routes), "$connect")
    error_message = "authorizer belongs to a route $connect, and the module creates none: set connect and connect_route to true, add $connect to routes, or set the authorizer on your own route."
  }
}

variable "route_selection_expression" {
  description = "Expression that selects the route of a client's message, such as `$request.body.action`; null uses the value in stack.json, `$request.body.type`."
  type        = string
  default     = null

  validation {
    condition     = var.route_selection_expression == null || can(regex("\\$", var.route_selection_expression))
    error_message = "route_selection_expression must refer to the message, as $request.body.action does: without $ it selects the same route for every message."
  }
}

variable "routes" {
  description = "Routes in addition to those of the module's functions, by route key, each with the function that receives the clients' messages, such as a router behind `$default`. Beside an `api` whose stage does not deploy automatically, deploy it after a change of routes."
  type = map(object({
    function_name = string
    invoke_arn    = string
  }))
  default = {}

  validation {
    condition     = !contains(keys(var.routes), "$connect") || !coalesce(var.connect, var.api == null) || !var.connect_route
    error_message = "routes must not contain $connect: the module's function has this route. To have a function of yours there, set connect or connect_route to false."
  }

  validation {
    condition     = !contains(keys(var.routes), "$disconnect") || !coalesce(var.disconnect, var.api == null) || !var.disconnect_route
    error_message = "routes must not contain $disconnect: the module's function has this route. To have a function of yours there, set disconnect or disconnect_route to false."
  }

  validation {
    condition     = !var.mailbox || length(setintersection(keys(var.routes), ["streamer.sync", "streamer.ack", "streamer.ping"])) == 0
    error_message = "routes must not contain streamer.sync, streamer.ack or streamer.ping: the mailbox has these routes. Choose other route keys, or set mailbox to false."
  }
}

variable "management_endpoint" {
  description = "URL at which the functions post to connections, with `{api}` for the API's id and `{stage}` for the stage's name; null uses the API's default endpoint. Set it for emulators, and for a custom domain whose API has no default endpoint."
  type        = string
  default     = null

  validation {
    condition     = var.management_endpoint == null || can(regex("^https?://[^/?#]+(/[^?#]*)?$", var.management_endpoint))
    error_message = "management_endpoint must be an http or https URL without a query."
  }
}

variable "management_endpoint_aliases" {
  description = "Other URLs, past or present, of the same API and stage. After a change of management_endpoint, list the old URL here for 2 h 10 min: rows of open connections contain it until then."
  type        = list(string)
  default     = null

  validation {
    condition     = alltrue([for alias in coalesce(var.management_endpoint_aliases, []) : can(regex("^https?://[^/?#,]+(/[^?#,]*)?$", alias))]) && try(length(var.management_endpoint_aliases) > 0, true)
    error_message = "management_endpoint_aliases must be http or https URLs without a query: set at least one, or omit the variable."
  }
}

variable "cell_endpoints" {
  description = "Management endpoints of all cells whose rows are in one connection table, with their aliases; the list may contain this cell's own. The worker leaves connections at these endpoints to the other cells, each of which must get a copy of every message. Cells with a connection table each need no list."
  type        = list(string)
  default     = null

  validation {
    condition     = alltrue([for endpoint in coalesce(var.cell_endpoints, []) : can(regex("^https?://[^/?#,]+(/[^?#,]*)?$", endpoint))]) && try(length(var.cell_endpoints) > 0, true)
    error_message = "cell_endpoints must be http or https URLs without a query: set at least one, or omit the variable."
  }
}

variable "disable_default_endpoint" {
  description = "Whether the API is reachable only at your custom domain. Set management_endpoint, too."
  type        = bool
  default     = false
}

variable "throttling" {
  description = "Throttling limits of each route of the stage for connects and messages of clients: requests a second (rate), and at once (burst). The defaults are the account's limits in newer Regions; older Regions have four times as much. A stage's limits cannot exceed the account's."
  type = object({
    rate  = optional(number)
    burst = optional(number)
  })
  default = null

  validation {
    condition     = try(var.throttling.rate > 0, true) && try(var.throttling.burst > 0, true)
    error_message = "throttling.rate and throttling.burst must be above 0: 0 refuses every request."
  }
}

# Authentication

variable "identity_source" {
  description = "Source of user, tenant and permissions: `token`, or `authorizer` for the context of a Lambda authorizer on `$connect`, and then no token is verified. Null uses the function's default, `token`, also if `authorizer` is set: the function verifies the token after the authorizer."
  type        = string
  default     = null

  validation {
    condition     = var.identity_source == null || contains(["token", "authorizer"], coalesce(var.identity_source, "-"))
    error_message = "identity_source must be token or authorizer."
  }

  validation {
    condition     = coalesce(var.identity_source, "token") != "authorizer" || var.authorizer != null || !var.connect_route
    error_message = "identity_source = \"authorizer\" needs an authorizer: set authorizer, or set connect_route to false if your own route $connect has one."
  }
}

variable "jwt_public_key" {
  description = "Public key that verifies tokens, as PEM: RSA, EC or Ed25519."
  type        = string
  default     = null

  validation {
    condition     = var.jwt_public_key != null || var.jwt_jwks_url != null || var.jwt_issuers != null || !coalesce(var.connect, var.api == null) || coalesce(var.identity_source, "token") == "authorizer"
    error_message = "No key is set to verify tokens: set jwt_public_key, jwt_jwks_url or jwt_issuers."
  }

  validation {
    condition     = var.jwt_public_key == null || var.jwt_jwks_url == null
    error_message = "jwt_public_key and jwt_jwks_url exclude each other: set one of them."
  }

  # The same URLs as in jwt_jwks_url, without a query. {tenantid} becomes `common` there.
  validation {
    condition     = var.jwt_public_key != null || var.jwt_jwks_url != null || alltrue([for issuer in coalesce(var.jwt_issuers, []) : can(regex("^(https://[^\\s/?#@]+|http://(localhost|127\\.0\\.0\\.1|\\[::1\\])(:[0-9]+)?)(/[^\\s?#]*)?$", trimspace(issuer)))])
    error_message = "Without jwt_public_key and jwt_jwks_url, jwt_issuers must be https URLs without a query, to discover the keys: change them, or set one of the two."
  }

  validation {
    condition     = var.jwt_public_key == null || can(regex("-----BEGIN (RSA )?PUBLIC KEY-----", var.jwt_public_key))
    error_message = "jwt_public_key must be a PEM with -----BEGIN PUBLIC KEY-----."
  }

  validation {
    condition     = var.jwt_public_key == null || coalesce(var.identity_source, "token") != "authorizer"
    error_message = "No token is verified with identity_source = \"authorizer\": omit jwt_public_key, or identity_source."
  }
}

variable "jwt_jwks_url" {
  description = "https URL of the issuer's JWK set, instead of jwt_public_key."
  type        = string
  default     = null

  validation {
    condition     = var.jwt_jwks_url == null || can(regex("^(https://[^\\s/?#@]+|http://(localhost|127\\.0\\.0\\.1|\\[::1\\])(:[0-9]+)?)([/?#]\\S*)?$", var.jwt_jwks_url))
    error_message = "jwt_jwks_url must be an https URL without credentials. Only on an emulator, http://localhost and http://127.0.0.1 work, too."
  }

  validation {
    condition     = var.jwt_jwks_url == null || coalesce(var.identity_source, "token") != "authorizer"
    error_message = "No token is verified with identity_source = \"authorizer\": omit jwt_jwks_url, or identity_source."
  }
}

variable "jwt_issuers" {
  description = "Accepted values of a token's `iss`; null accepts any. If neither jwt_public_key nor jwt_jwks_url is set, they must be https URLs whose OpenID Connect configurations provide the keys. The token's `tid` replaces `{tenantid}`, for several tenants of Entra ID."
  type        = list(string)
  default     = null

  validation {
    condition     = var.jwt_issuers == null || (length(coalesce(var.jwt_issuers, [])) > 0 && alltrue([for issuer in coalesce(var.jwt_issuers, []) : can(regex("^[^,]*[^\\s,][^,]*$", issuer))]))
    error_message = "jwt_issuers must contain at least one issuer, and no issuer may be empty or contain a comma."
  }

  validation {
    condition     = var.jwt_issuers == null || coalesce(var.identity_source, "token") != "authorizer"
    error_message = "No token is verified with identity_source = \"authorizer\": omit jwt_issuers, or identity_source."
  }
}

variable "jwt_audiences" {
  description = "Accepted values of a token's `aud`, or [\"any\"] for all tokens of the issuers. Required with jwt_jwks_url, and with jwt_issuers as the only source of keys: such a key may sign tokens for other applications. Null refuses tokens that have an `aud`."
  type        = list(string)
  default     = null

  validation {
    condition     = var.jwt_audiences == null || (length(coalesce(var.jwt_audiences, [])) > 0 && alltrue([for audience in coalesce(var.jwt_audiences, []) : can(regex("^[^,]*[^\\s,][^,]*$", audience))]))
    error_message = "jwt_audiences must contain at least one audience, and no audience may be empty or contain a comma."
  }

  validation {
    condition     = length(coalesce(var.jwt_audiences, [])) < 2 || !try(contains([for audience in var.jwt_audiences : trimspace(audience)], "any"), false)
    error_message = "\"any\" in jwt_audiences stands alone: remove the other audiences, or \"any\"."
  }

  validation {
    condition     = var.jwt_audiences != null || var.jwt_public_key != null || (var.jwt_jwks_url == null && var.jwt_issuers == null) || !coalesce(var.connect, var.api == null) || coalesce(var.identity_source, "token") == "authorizer"
    error_message = "The keys of jwt_jwks_url and jwt_issuers may sign tokens for other applications: set jwt_audiences, or [\"any\"] to accept all of them."
  }

  validation {
    condition     = var.jwt_audiences == null || coalesce(var.identity_source, "token") != "authorizer"
    error_message = "No token is verified with identity_source = \"authorizer\": omit jwt_audiences, or identity_source."
  }
}

variable "jwt_audience_claim" {
  description = "Claim that holds the audience, a name or a JSON pointer; null uses `aud`. `client_id` for access tokens of Amazon Cognito."
  type        = string
  default     = null

  validation {
    condition     = var.jwt_audience_claim == null || can(regex("^([^/]|/([^~]|~[01])*$)", var.jwt_audience_claim))
    error_message = "jwt_audience_claim must be the name of a claim, or a JSON pointer such as /resource/client, in which ~ occurs only as ~0 or ~1."
  }

  validation {
    condition     = var.jwt_audience_claim == null || coalesce(var.identity_source, "token") == "authorizer" || try(!contains([for audience in var.jwt_audiences : trimspace(audience)], "any"), false)
    error_message = "jwt_audience_claim needs an audience other than \"any\" in jwt_audiences: set one, or omit jwt_audience_claim."
  }

  validation {
    condition     = var.jwt_audience_claim == null || coalesce(var.identity_source, "token") != "authorizer"
    error_message = "No token is verified with identity_source = \"authorizer\": omit jwt_audience_claim, or identity_source."
  }
}

variable "user_claim" {
  description = "Claim that holds the user, a name such as `oid` or a JSON pointer such as `/ext/user`; null uses `sub`, and `principalId` with identity_source = \"authorizer\"."
  type        = string
  default     = null

  validation {
    condition     = var.user_claim == null || can(regex("^([^/]|/([^~]|~[01])*$)", var.user_claim))
    error_message = "user_claim must be the name of a claim, or a JSON pointer such as /ext/user, in which ~ occurs only as ~0 or ~1."
  }
}

variable "tenant_claim" {
  description = "Claim that holds the tenant, a name such as `org_id` or a JSON pointer such as `/ext/tenant`; null uses `tenant_id`."
  type        = string
  default     = null

  validation {
    condition     = var.tenant_claim == null || can(regex("^([^/]|/([^~]|~[01])*$)", var.tenant_claim))
    error_message = "tenant_claim must be the name of a claim, or a JSON pointer such as /ext/tenant, in which ~ occurs only as ~0 or ~1."
  }
}

variable "default_tenant" {
  description = "Tenant of a user whose claims name none; null refuses such a user."
  type        = string
  default     = null

  # urlencode writes each byte as one character or as %XX.
  validation {
    condition     = var.default_tenant == null || try(contains(range(1, 257), length(replace(urlencode(var.default_tenant), "/%../", "-"))) && !can(regex("[\\x{0}-\\x{1f}\\x{7f}-\\x{9f}\\x{61c}\\x{200e}\\x{200f}\\x{2028}-\\x{202e}\\x{2066}-\\x{2069}]", var.default_tenant)), false)
    error_message = "default_tenant must have 1 to 256 bytes, and no control or bidirectional formatting character."
  }
}

variable "permissions_claim" {
  description = "Claim that holds the permissions, a list of strings or a string with spaces: a name such as `scope`, or a JSON pointer such as `/realm_access/roles`. Null uses `permissions`."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_claim == null || can(regex("^([^/]|/([^~]|~[01])*$)", var.permissions_claim))
    error_message = "permissions_claim must be the name of a claim, or a JSON pointer such as /realm_access/roles, in which ~ occurs only as ~0 or ~1."
  }
}

variable "allowed_tenants" {
  description = "Tenants that may connect; null allows all."
  type        = list(string)
  default     = null

  validation {
    condition     = var.allowed_tenants == null || (length(coalesce(var.allowed_tenants, [])) > 0 && alltrue([for tenant in coalesce(var.allowed_tenants, []) : can(regex("^[^,]*[^\\s,][^,]*$", tenant))]))
    error_message = "allowed_tenants must contain at least one tenant, and no tenant may be empty or contain a comma."
  }

  validation {
    condition     = alltrue([for tenant in coalesce(var.allowed_tenants, []) : try(length(replace(urlencode(trimspace(tenant)), "/%../", "-")) <= 256 && !can(regex("[\\x{0}-\\x{1f}\\x{7f}-\\x{9f}\\x{61c}\\x{200e}\\x{200f}\\x{2028}-\\x{202e}\\x{2066}-\\x{2069}]", trimspace(tenant))), false)])
    error_message = "A tenant of allowed_tenants must have at most 256 bytes, and no control or bidirectional formatting character."
  }
}

variable "required_permission" {
  description = "Permission that a client must have, see permissions_claim; null requires no permission."
  type        = string
  default     = null

  validation {
    condition     = var.required_permission == null || try(length(var.required_permission) > 0, false)
    error_message = "required_permission must not be empty: set a value, or omit it."
  }
}

variable "subprotocols" {
  description = "Further subprotocols to answer when a client offers them, such as `graphql-transport-ws`, besides `streamer.jwt`; null answers none."
  type        = list(string)
  default     = null

  # https://www.rfc-editor.org/rfc/rfc6455#section-4.1
  validation {
    condition     = alltrue([for subprotocol in coalesce(var.subprotocols, []) : can(regex("^[0-9A-Za-z!#$%&'*+.^_`|~-]+$", trimspace(subprotocol)))])
    error_message = "A subprotocol must be a token of RFC 6455: letters, digits and !#$%&'*+-.^_`|~ without spaces."
  }
}

variable "max_connections_per_user" {
  description = "Maximum number of connections of a user: a new connection beyond it closes the oldest. Null sets no limit."
  type        = number
  default     = null

  validation {
    condition     = var.max_connections_per_user == null || contains(range(1, 1001), coalesce(var.max_connections_per_user, 1))
    error_message = "max_connections_per_user must be a whole number from 1 to 1000."
  }
}

variable "expire_with_token" {
  description = "Whether a connection's row expires with its token, if that is earlier; null uses the function's default, false."
  type        = bool
  default     = null

  validation {
    condition     = !coalesce(var.expire_with_token, false) || coalesce(var.identity_source, "token") != "authorizer"
    error_message = "No token is verified with identity_source = \"authorizer\": omit expire_with_token, or identity_source."
  }
}

# Worker and queues

variable "fifo" {
  description = "Whether the queues are FIFO queues. A change replaces the queues: drain them, then list them in abandon."
  type        = bool
  default     = false
}

variable "worker_timeout_seconds" {
  description = "Timeout of the worker; null uses the value in stack.json."
  type        = number
  default     = null

  validation {
    condition     = var.worker_timeout_seconds == null || try(floor(var.worker_timeout_seconds) == var.worker_timeout_seconds && var.worker_timeout_seconds >= 1 && var.worker_timeout_seconds <= 900, false)
    error_message = "worker_timeout_seconds must be a whole number from 1 to 900."
  }
}

variable "worker_memory_mb" {
  description = "Memory of the worker; null uses the value in stack.json."
  type        = number
  default     = null

  validation {
    condition     = var.worker_memory_mb == null || try(floor(var.worker_memory_mb) == var.worker_memory_mb && var.worker_memory_mb >= 128 && var.worker_memory_mb <= 10240, false)
    error_message = "worker_memory_mb must be a whole number from 128 to 10240."
  }
}

variable "connect_grace_seconds" {
  description = "Age of a connection below which a 410 means that it is not yet connected; null uses the worker's default."
  type        = number
  default     = null

  validation {
    condition     = var.connect_grace_seconds == null || try(floor(var.connect_grace_seconds) == var.connect_grace_seconds && var.connect_grace_seconds >= 0 && var.connect_grace_seconds <= 3600, false)
    error_message = "connect_grace_seconds must be a whole number from 0 to 3600."
  }
}

variable "away_grace_seconds" {
  description = "Time from a message's first receive for which the worker waits for a user without a connection; null uses the worker's default."
  type        = number
  default     = null

  validation {
    condition     = var.away_grace_seconds == null || try(floor(var.away_grace_seconds) == var.away_grace_seconds && var.away_grace_seconds >= 0 && var.away_grace_seconds <= 3600, false)
    error_message = "away_grace_seconds must be a whole number from 0 to 3600."
  }
}

variable "tenant_shards" {
  description = "Number of index keys over which the connections of each tenant are distributed: more carry a larger storm of connects, fewer make a message for a tenant cheaper. Null uses the functions' default, 8. A smaller number than before needs former_tenant_shards."
  type        = number
  default     = null

  validation {
    condition     = var.tenant_shards == null || contains(range(1, 257), coalesce(var.tenant_shards, 1))
    error_message = "tenant_shards must be a whole number from 1 to 256."
  }
}

variable "former_tenant_shards" {
  description = "The larger tenant_shards that was in use before, for as long as connections of that time may live: 2 h 10 min after a change to fewer. The worker reads the larger of both numbers."
  type        = number
  default     = null

  validation {
    condition     = var.former_tenant_shards == null || contains(range(1, 257), coalesce(var.former_tenant_shards, 1))
    error_message = "former_tenant_shards must be a whole number from 1 to 256."
  }
}

variable "max_age_seconds" {
  description = "Time from a message's first receive after which the worker stops retrying and makes it a dead letter. No connection lives longer than 2 h."
  type        = number
  default     = 7800

  validation {
    condition     = floor(var.max_age_seconds) == var.max_age_seconds && var.max_age_seconds >= 1 && var.max_age_seconds <= 259200
    error_message = "max_age_seconds must be a whole number from 1 to 259200."
  }
}

variable "visibility_timeout_seconds" {
  description = "Visibility timeout of the outbound queue, at least six times the worker's timeout; null uses the value in stack.json."
  type        = number
  default     = null

  validation {
    condition     = var.visibility_timeout_seconds == null || try(floor(var.visibility_timeout_seconds) == var.visibility_timeout_seconds && var.visibility_timeout_seconds <= 43200, false)
    error_message = "visibility_timeout_seconds must be a whole number up to 43200, SQS's maximum."
  }
}

variable "retention_seconds" {
  description = "Retention of messages on the outbound queue; null uses the value in stack.json."
  type        = number
  default     = null

  validation {
    condition     = var.retention_seconds == null || try(floor(var.retention_seconds) == var.retention_seconds && var.retention_seconds >= 60 && var.retention_seconds <= 1209600, false)
    error_message = "retention_seconds must be a whole number from 60 to 1209600 (14 days), SQS's limits."
  }
}

variable "dead_letter_retention_seconds" {
  description = "Retention of dead letters, longer than retention_seconds; null uses the value in stack.json."
  type        = number
  default     = null

  validation {
    condition     = var.dead_letter_retention_seconds == null || try(floor(var.dead_letter_retention_seconds) == var.dead_letter_retention_seconds && var.dead_letter_retention_seconds >= 60 && var.dead_letter_retention_seconds <= 1209600, false)
    error_message = "dead_letter_retention_seconds must be a whole number from 60 to 1209600 (14 days), SQS's limits."
  }
}

variable "max_message_bytes" {
  description = "Maximum size of a message on the queues, body and attributes together. 256 KiB is enough for every message that the worker delivers. SQS accepts up to 1048576; provider 5.100 does not."
  type        = number
  default     = 262144

  validation {
    condition     = var.max_message_bytes >= 262144 && var.max_message_bytes <= 1048576
    error_message = "max_message_bytes must be from 262144 to 1048576: a smaller limit may be too small for a payload of 128 KiB with the rest of its message."
  }
}

variable "max_payload_bytes" {
  description = "Maximum size of a payload that is posted to a connection; null uses API Gateway's limit, 131072. AWS limits WebSocket frames to 32768 bytes and does not document whether API Gateway splits a larger payload into frames: `streamer doctor` shows what it does. If it closes the connection, set 32768; a larger payload then becomes a dead letter."
  type        = number
  default     = null

  validation {
    condition     = var.max_payload_bytes == null || try(floor(var.max_payload_bytes) == var.max_payload_bytes && var.max_payload_bytes >= 8192 && var.max_payload_bytes <= 131072, false)
    error_message = "max_payload_bytes must be a whole number from 8192 to 131072 (128 KiB), API Gateway's limit."
  }
}

variable "batch_size" {
  description = "Maximum number of messages in an invocation; null uses the value in stack.json. More than 10 require a batching window and a standard queue."
  type        = number
  default     = null

  validation {
    condition     = var.batch_size == null || try(floor(var.batch_size) == var.batch_size && var.batch_size >= 1 && var.batch_size <= 10000, false)
    error_message = "batch_size must be a whole number from 1 to 10000."
  }
}

variable "batching_window_seconds" {
  description = "Time that Lambda waits for a batch to fill; null uses the value in stack.json, 0."
  type        = number
  default     = null

  validation {
    condition     = var.batching_window_seconds == null || contains(range(0, 301), coalesce(var.batching_window_seconds, 0))
    error_message = "batching_window_seconds must be a whole number from 0 to 300."
  }
}

# Mailbox

variable "mailbox" {
  description = "Whether to create the mailbox: a table of kept messages, the function that sends them to clients which were away, and the routes `streamer.sync`, `streamer.ack` and `streamer.ping`. It needs the connection table. Beside an `api` whose stage does not deploy automatically, deploy it after a change."
  type        = bool
  default     = false

  validation {
    condition     = !var.mailbox || coalesce(var.table, coalesce(var.connect, var.api == null) || coalesce(var.disconnect, var.api == null))
    error_message = "The mailbox needs the connection table: its rows name the user of each connection. Set table to true and let functions of yours write the rows, set connect and disconnect to true, or set mailbox to false."
  }

  # Beside an API that exists, the expression is not known here.
  validation {
    condition     = !var.mailbox || var.route_selection_expression == null || can(regex("^\\$(request\\.body\\.(type|action)|\\{request\\.body\\.(type|action)\\})$", var.route_selection_expression))
    error_message = "The mailbox's frames have the route key in their fields type and action: set route_selection_expression to $request.body.type or $request.body.action, or set mailbox to false."
  }
}

variable "mailbox_generation" {
  description = "Part of every stream's epoch. Change it after the mailbox table was restored from a backup, to 1 the first time: clients then start over and report a gap. Otherwise they would skip messages that reuse the restored positions, without notice."
  type        = string
  default     = "0"

  validation {
    condition     = can(regex("^[A-Za-z0-9]{1,8}$", var.mailbox_generation))
    error_message = "mailbox_generation must have 1 to 8 characters: letters and digits."
  }
}

variable "mailbox_max_messages" {
  description = "Maximum number of messages that a user's stream keeps. Beyond it the worker removes the oldest, and clients that lack them report a gap."
  type        = number
  default     = 1000

  validation {
    condition     = floor(var.mailbox_max_messages) == var.mailbox_max_messages && var.mailbox_max_messages >= 100 && var.mailbox_max_messages <= 10000
    error_message = "mailbox_max_messages must be a whole number from 100 to 10000."
  }
}

# Receipts

variable "receipts" {
  description = "Whether to create the receipts queue. For a message whose producer asks for a receipt, it gets the message's outcome, and with the mailbox the acknowledgments of clients. A program of yours must read it: SQS deletes receipts after 14 days."
  type        = bool
  default     = false
}

# Request rate and concurrency

variable "requests_per_second" {
  description = "Requests a second to API Gateway that Streamer may use; null uses the value in stack.json, 1000, which the smallest account has to spare. An account has 10000 in a Region by default, 2500 in newer Regions, for all its APIs there. The module computes the mapping's maximum concurrency, the worker's reserved concurrency and its posts a second from it."
  type        = number
  default     = null

  validation {
    condition     = var.requests_per_second == null || try(floor(var.requests_per_second) == var.requests_per_second && var.requests_per_second >= 2, false)
    error_message = "requests_per_second must be a whole number of at least 2: the maximum concurrency of a mapping is at least 2, and each execution environment makes at least one post a second."
  }
}

variable "parts_percent" {
  description = "Percentage of requests_per_second for the parts of messages for large audiences, which then have a queue of their own: a reply to one user does not wait behind a broadcast to its tenant. 0 sends parts to the outbound queue. Each queue has at least 2 execution environments, so a small requests_per_second is divided in halves."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.parts_percent == 0 || (floor(var.parts_percent) == var.parts_percent && var.parts_percent >= 10 && var.parts_percent <= 90)
    error_message = "parts_percent must be 0, or a whole number from 10 to 90."
  }
}

variable "provisioned_pollers" {
  description = "Provisioned pollers of the outbound queue's event source mapping, instead of a maximum concurrency. Each makes up to 10 concurrent invocations. Null uses no pollers."
  type = object({
    minimum = number
    maximum = number
  })
  default = null

  # https://docs.aws.amazon.com/lambda/latest/api/API_ProvisionedPollerConfig.html
  validation {
    condition     = var.provisioned_pollers == null || try(var.provisioned_pollers.minimum >= 2 && var.provisioned_pollers.minimum <= 200 && var.provisioned_pollers.maximum >= var.provisioned_pollers.minimum && var.provisioned_pollers.maximum <= 2000, false)
    error_message = "provisioned_pollers.minimum must be from 2 to 200, and provisioned_pollers.maximum from the minimum to 2000."
  }
}

variable "account_concurrency" {
  description = "The account's quota of concurrent executions of Lambda in the Region (L-B99A9384 in Service Quotas). The default is that of new accounts; most others have 1000. Above 100, the worker can have reserved concurrency."
  type        = number
  default     = 10

  validation {
    condition     = floor(var.account_concurrency) == var.account_concurrency && var.account_concurrency >= 4
    error_message = "account_concurrency must be a whole number of at least 4: the worker needs 2, the smallest maximum concurrency of a mapping, and leaves as many to other functions."
  }
}

variable "reserved_concurrency" {
  description = "Reserved concurrency of the worker; null reserves as much as the mapping uses if account_concurrency permits it, and else nothing. -1 reserves nothing."
  type        = number
  default     = null

  validation {
    condition     = var.reserved_concurrency == null || coalesce(var.reserved_concurrency, -1) == -1 || try(floor(var.reserved_concurrency) == var.reserved_concurrency && var.reserved_concurrency >= 2, false)
    error_message = "reserved_concurrency must be -1, or a whole number of at least 2, the smallest maximum concurrency of a mapping."
  }
}

variable "mailbox_concurrency" {
  description = "Reserved concurrency of the function mailbox, which is also its limit: when many clients sync at once, the others try again, and `$connect` is not throttled. Null reserves a tenth of account_concurrency if the account has it to spare, and else nothing. -1 reserves nothing."
  type        = number
  default     = null

  validation {
    condition     = var.mailbox_concurrency == null || coalesce(var.mailbox_concurrency, -1) == -1 || try(floor(var.mailbox_concurrency) == var.mailbox_concurrency && var.mailbox_concurrency >= 1, false)
    error_message = "mailbox_concurrency must be -1, or a whole number of at least 1."
  }
}

# Logs, traces and alarms

variable "log_level" {
  description = "Log level: `error`, `warn`, `info`, `debug`, `trace`, or `off`, which stops metrics, too; null uses the functions' default, `info`."
  type        = string
  default     = null

  validation {
    condition     = var.log_level == null || contains(["error", "warn", "info", "debug", "trace", "off"], coalesce(var.log_level, "-"))
    error_message = "log_level must be error, warn, info, debug, trace or off."
  }
}

variable "log_retention_days" {
  description = "Retention of logs."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a value that CloudWatch Logs supports: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "tracing" {
  description = "Whether X-Ray traces the functions."
  type        = bool
  default     = true
}

variable "alarm_topic_arn" {
  description = "ARN of the SNS topic to notify when an alarm starts and when it ends; null sends no notifications."
  type        = string
  default     = null
}

variable "alarms" {
  description = "Thresholds of the alarms."
  type = object({
    oldest_message_seconds           = optional(number, 300)
    oldest_part_seconds              = optional(number, 3600)
    handed_back_seconds              = optional(number, 420)
    undelivered_percent              = optional(number, 20)
    undelivered_minimum              = optional(number, 2)
    refused_connect_percent          = optional(number, 20)
    refused_connect_minimum          = optional(number, 20)
    refused_connect_majority_minimum = optional(number, 3)
    failed_sync_percent              = optional(number, 20)
    failed_sync_minimum              = optional(number, 2)
    unread_receipt_seconds           = optional(number, 3600)
    errors                           = optional(number, 0)
    throttles                        = optional(number, 0)
    delivery_latency_p99_ms          = optional(number, 10000)
  })
  default = {}

  validation {
    condition     = alltrue([for percent in [var.alarms.refused_connect_percent, var.alarms.undelivered_percent, var.alarms.failed_sync_percent] : percent > 0 && percent <= 100])
    error_message = "refused_connect_percent, undelivered_percent and failed_sync_percent must be above 0 and at most 100."
  }

  validation {
    condition     = alltrue([for minimum in [var.alarms.refused_connect_minimum, var.alarms.refused_connect_majority_minimum, var.alarms.undelivered_minimum, var.alarms.failed_sync_minimum] : minimum >= 1])
    error_message = "refused_connect_minimum, refused_connect_majority_minimum, undelivered_minimum and failed_sync_minimum must be at least 1."
  }

  validation {
    condition     = var.alarms.unread_receipt_seconds > 0 && var.alarms.unread_receipt_seconds < 1209600
    error_message = "unread_receipt_seconds must be above 0 and below 1209600: SQS deletes receipts after 14 days."
  }
}
