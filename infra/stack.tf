# Names and settings, computed from stack.json and the variables.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  stack     = jsondecode(file("${path.module}/stack.json"))
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id

  # Beside an API that exists, the functions of `$connect` and `$disconnect` are created only if they are asked for.
  creates_api = var.api == null
  creates_function = {
    connect    = coalesce(var.connect, local.creates_api)
    disconnect = coalesce(var.disconnect, local.creates_api)
    mailbox    = var.mailbox
  }
  creates_table = coalesce(var.table, local.creates_function.connect || local.creates_function.disconnect)

  stage = coalesce(var.stage, try(var.api.stage, null), "production")

  # Every name begins with the API's name, so that one account can hold several deployments.
  name             = coalesce(var.name, local.stack.api.name)
  queue_suffix     = var.fifo ? ".fifo" : ""
  table_name       = "${local.name}${trimprefix(local.stack.table.name, local.stack.api.name)}"
  mailbox_name     = "${local.name}${trimprefix(local.stack.mailbox.name, local.stack.api.name)}"
  outbound_name    = "${local.name}${trimprefix(local.stack.queues.outbound.name, local.stack.api.name)}${local.queue_suffix}"
  parts_name       = "${local.name}${trimprefix(local.stack.queues.parts.name, local.stack.api.name)}"
  dead_letter_name = "${local.name}${trimprefix(local.stack.queues.dead_letter.name, local.stack.api.name)}${local.queue_suffix}"
  receipts_name    = "${local.name}${trimprefix(local.stack.queues.receipts.name, local.stack.api.name)}"

  # Names of roles, policies and dashboards are unique in the account, not in the Region.
  global_name = "${local.name}-${local.region}"

  function_names = { for short in keys(local.stack.functions) : short => "${local.name}-${short}" }

  worker   = local.stack.mapping.function
  packages = coalesce(var.packages, "${path.module}/../target/lambda")
  functions = {
    for short, function in local.stack.functions : short => {
      name            = local.function_names[short]
      zip             = "${local.packages}/${function.package}-${var.architecture}.zip"
      timeout_seconds = short == local.worker ? coalesce(var.worker_timeout_seconds, function.timeout_seconds) : function.timeout_seconds
      memory_mb       = short == local.worker ? coalesce(var.worker_memory_mb, function.memory_mb) : function.memory_mb
    }
    if lookup(local.creates_function, short, true)
  }

  retention_seconds             = coalesce(var.retention_seconds, local.stack.queues.outbound.retention_seconds)
  dead_letter_retention_seconds = coalesce(var.dead_letter_retention_seconds, local.stack.queues.dead_letter.retention_seconds)
  visibility_timeout_seconds    = coalesce(var.visibility_timeout_seconds, local.stack.queues.outbound.visibility_timeout_seconds)
  max_receive_count             = var.fifo ? local.stack.queues.outbound.fifo_max_receive_count : local.stack.queues.outbound.max_receive_count

  # The worker reads every shard that may hold rows. Null if both functions have their default.
  tenant_shards_to_read = (
    var.tenant_shards == null && var.former_tenant_shards == null
    ? null
    : max(coalesce(var.tenant_shards, local.default_tenant_shards), coalesce(var.former_tenant_shards, 1))
  )
  default_tenant_shards = 8

  # Values of the functions' environment variables, by their names in stack.json.
  settings = {
    allowed_tenants             = var.allowed_tenants == null ? null : join(",", var.allowed_tenants)
    away_grace_seconds          = var.away_grace_seconds
    cell_endpoints              = var.cell_endpoints == null ? null : join(",", var.cell_endpoints)
    connect_grace_seconds       = var.connect_grace_seconds
    default_tenant              = var.default_tenant
    expire_with_token           = var.expire_with_token
    identity_source             = var.identity_source
    jwt_audience_claim          = var.jwt_audience_claim
    jwt_audiences               = var.jwt_audiences == null ? null : join(",", var.jwt_audiences)
    jwt_issuers                 = var.jwt_issuers == null ? null : join(",", var.jwt_issuers)
    jwt_jwks_url                = var.jwt_jwks_url
    jwt_public_key              = var.jwt_public_key
    log_level                   = var.log_level
    mailbox_generation          = var.mailbox ? var.mailbox_generation : null
    mailbox_max_messages        = var.mailbox ? var.mailbox_max_messages : null
    mailbox_timeout_seconds     = local.stack.functions.mailbox.timeout_seconds
    management_endpoint_aliases = var.management_endpoint_aliases == null ? null : join(",", var.management_endpoint_aliases)
    max_age_seconds             = var.max_age_seconds
    max_connections_per_user    = var.max_connections_per_user
    max_payload_bytes           = var.max_payload_bytes
    max_posts_per_second        = local.max_posts_per_second
    permissions_claim           = var.permissions_claim
    required_permission         = var.required_permission
    stage                       = local.stage
    subprotocols                = length(coalesce(var.subprotocols, [])) == 0 ? null : join(",", var.subprotocols)
    tenant_claim                = var.tenant_claim
    tenant_shards               = var.tenant_shards
    tenant_shards_to_read       = local.tenant_shards_to_read
    user_claim                  = var.user_claim
    worker_timeout_seconds      = local.functions[local.worker].timeout_seconds
  }
  resource_values = {
    connections_table     = one(aws_dynamodb_table.connections[*].name)
    dead_letter_queue_url = aws_sqs_queue.dead_letter.url
    mailbox_table         = one(aws_dynamodb_table.mailbox[*].name)
    management_endpoint   = local.management_endpoint
    parts_queue_url       = one(aws_sqs_queue.parts[*].url)
    queue_url             = aws_sqs_queue.outbound.url
    receipts_queue_url    = one(aws_sqs_queue.receipts[*].url)
  }
  values = merge({ for name, value in local.settings : name => tostring(value) }, local.resource_values)

  # The functions have defaults for unset variables. Without a table, the worker delivers to connections only, without a
  # mailbox it keeps no messages, and without queues for them it sends no receipts, and parts to the outbound queue.
  unset = concat(
    [for name, value in local.settings : name if value == null],
    local.creates_table ? [] : ["connections_table"],
    var.mailbox ? [] : ["mailbox_table"],
    var.receipts ? [] : ["receipts_queue_url"],
    local.has_parts_queue ? [] : ["parts_queue_url"],
  )
  environment = {
    for short, function in local.stack.functions : short => {
      for variable, name in function.environment : variable => local.values[name] if !contains(local.unset, name)
    }
    if contains(keys(local.functions), short)
  }
}
