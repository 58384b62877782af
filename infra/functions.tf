# The Lambda functions.

locals {
  # Variables that are set and that only the function connect reads.
  connect_only = compact([
    var.identity_source == null ? "" : "identity_source",
    var.jwt_public_key == null ? "" : "jwt_public_key",
    var.jwt_jwks_url == null ? "" : "jwt_jwks_url",
    var.jwt_issuers == null ? "" : "jwt_issuers",
    var.jwt_audiences == null ? "" : "jwt_audiences",
    var.jwt_audience_claim == null ? "" : "jwt_audience_claim",
    var.user_claim == null ? "" : "user_claim",
    var.tenant_claim == null ? "" : "tenant_claim",
    var.default_tenant == null ? "" : "default_tenant",
    var.permissions_claim == null ? "" : "permissions_claim",
    var.allowed_tenants == null ? "" : "allowed_tenants",
    var.required_permission == null ? "" : "required_permission",
    var.subprotocols == null ? "" : "subprotocols",
    var.max_connections_per_user == null ? "" : "max_connections_per_user",
    var.expire_with_token == null ? "" : "expire_with_token",
  ])

  # All functions, by short name.
  deployed_functions = merge(aws_lambda_function.this, { for function in aws_lambda_function.connect : "connect" => function })
}

# All functions except connect.
resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_116:A function's dead-letter queue serves asynchronous invocations; these functions have only synchronous ones.
  #checkov:skip=CKV_AWS_117:The functions call nothing inside a VPC.
  #checkov:skip=CKV_AWS_173:No variable holds a secret: JWT_PUBLIC_KEY is public.
  #checkov:skip=CKV_AWS_272:Code signing needs a signing profile and a bucket of the account.
  for_each = { for short, function in local.functions : short => function if short != "connect" }

  function_name                  = each.value.name
  role                           = aws_iam_role.function[each.key].arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.architecture]
  filename                       = each.value.zip
  source_code_hash               = fileexists(each.value.zip) ? filebase64sha256(each.value.zip) : null
  timeout                        = each.value.timeout_seconds
  memory_size                    = each.value.memory_mb
  reserved_concurrent_executions = lookup(local.reservations, each.key, -1)
  tags                           = var.tags

  environment {
    variables = local.environment[each.key]
  }

  # The reference creates the log group before the function: Lambda would create one without a retention.
  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function[each.key].name
  }

  tracing_config {
    mode = var.tracing ? "Active" : "PassThrough"
  }

  lifecycle {
    precondition {
      condition     = fileexists(each.value.zip)
      error_message = "The package ${each.value.zip} does not exist: run `streamer package --arch ${var.architecture}`, or set packages to the folder that holds it."
    }

    precondition {
      condition     = local.creates_function.connect || length(local.connect_only) == 0
      error_message = "Without the function connect, no client is verified: set connect to true, or omit ${join(", ", local.connect_only)}."
    }

    precondition {
      condition     = each.key != "mailbox" || local.mailbox_concurrency == -1 || local.mailbox_concurrency <= local.spare_concurrency
      error_message = "Lambda keeps 100 of the account's concurrency unreserved, and the worker reserves ${max(0, local.reserved_concurrency)}, so mailbox_concurrency may be at most ${max(0, local.spare_concurrency)} with an account_concurrency of ${var.account_concurrency}: omit or lower mailbox_concurrency, or set account_concurrency to the account's quota if that is larger."
    }
  }

  # The role needs its permissions before the first invocation.
  depends_on = [aws_iam_role_policy.function]
}

# A resource of its own, because it depends on the worker: when tenant_shards grows, connect writes no row to a shard
# that the worker does not read yet.
resource "aws_lambda_function" "connect" {
  #checkov:skip=CKV_AWS_116:A function's dead-letter queue serves asynchronous invocations; this function has only synchronous ones.
  #checkov:skip=CKV_AWS_117:The function calls nothing inside a VPC.
  #checkov:skip=CKV_AWS_173:No variable holds a secret: JWT_PUBLIC_KEY is public.
  #checkov:skip=CKV_AWS_272:Code signing needs a signing profile and a bucket of the account.
  count = local.creates_function.connect ? 1 : 0

  function_name                  = local.functions.connect.name
  role                           = aws_iam_role.function["connect"].arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.architecture]
  filename                       = local.functions.connect.zip
  source_code_hash               = fileexists(local.functions.connect.zip) ? filebase64sha256(local.functions.connect.zip) : null
  timeout                        = local.functions.connect.timeout_seconds
  memory_size                    = local.functions.connect.memory_mb
  reserved_concurrent_executions = lookup(local.reservations, "connect", -1)
  tags                           = var.tags

  environment {
    variables = local.environment["connect"]
  }

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function["connect"].name
  }

  tracing_config {
    mode = var.tracing ? "Active" : "PassThrough"
  }

  lifecycle {
    precondition {
      condition     = fileexists(local.functions.connect.zip)
      error_message = "The package ${local.functions.connect.zip} does not exist: run `streamer package --arch ${var.architecture}`, or set packages to the folder that holds it."
    }
  }

  depends_on = [aws_iam_role_policy.function, aws_lambda_function.this]
}
