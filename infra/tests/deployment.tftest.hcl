# Resources with the default settings, and the effect of variables on them.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

override_resource {
  target          = aws_sqs_queue.outbound
  override_during = plan
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:outbound"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/outbound"
  }
}

override_resource {
  target          = aws_sqs_queue.dead_letter
  override_during = plan
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:dead-letters"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/dead-letters"
  }
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
}

run "names_begin_with_the_api_name" {
  command = plan

  assert {
    condition     = { for short, function in local.deployed_functions : short => function.function_name } == { connect = "streamer-connect", disconnect = "streamer-disconnect", delivery = "streamer-delivery" }
    error_message = "functions: ${jsonencode({ for short, function in local.deployed_functions : short => function.function_name })}"
  }

  assert {
    condition     = [aws_dynamodb_table.connections[0].name, aws_sqs_queue.outbound.name, aws_sqs_queue.dead_letter.name] == ["streamer_connections", "streamer-outbound", "streamer-dead-letters"]
    error_message = "The table and the queues must have the names in stack.json."
  }

  assert {
    condition     = aws_iam_role.function["connect"].name == "streamer-connect-eu-central-1"
    error_message = "Role names are unique in the account: they must contain the Region."
  }
}

run "custom_name_replaces_the_prefix" {
  command = plan

  variables {
    name = "chat"
  }

  assert {
    condition     = [aws_dynamodb_table.connections[0].name, aws_sqs_queue.outbound.name, aws_sqs_queue.dead_letter.name, aws_apigatewayv2_api.this[0].name, aws_lambda_function.this["delivery"].function_name] == ["chat_connections", "chat-outbound", "chat-dead-letters", "chat", "chat-delivery"]
    error_message = "All names must begin with var.name."
  }
}

run "functions_get_default_environment" {
  command = plan

  assert {
    condition     = aws_lambda_function.connect[0].environment[0].variables == tomap({ CONNECTIONS_TABLE = "streamer_connections", JWT_AUDIENCE = "streamer", JWT_ISSUER = "https://auth.example.com", STAGE = "production", WEBSOCKET_ENDPOINT = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production" })
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }

  assert {
    condition     = aws_lambda_function.this["disconnect"].environment[0].variables == tomap({ CONNECTIONS_TABLE = "streamer_connections", STAGE = "production" })
    error_message = "disconnect: ${jsonencode(aws_lambda_function.this["disconnect"].environment[0].variables)}"
  }

  assert {
    condition     = aws_lambda_function.this["delivery"].environment[0].variables == tomap({ CONNECTIONS_TABLE = "streamer_connections", DEAD_LETTER_QUEUE_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/dead-letters", MAX_AGE_SECONDS = "7800", MAX_POSTS_PER_SECOND = "500", QUEUE_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/outbound", STAGE = "production", TIMEOUT_SECONDS = "30", WEBSOCKET_ENDPOINT = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production" })
    error_message = "delivery: ${jsonencode(aws_lambda_function.this["delivery"].environment[0].variables)}"
  }
}

run "variables_reach_function_environment" {
  command = plan

  variables {
    jwt_public_key              = "-----BEGIN PUBLIC KEY-----"
    jwt_audiences               = ["streamer", "mobile"]
    jwt_audience_claim          = "client_id"
    identity_source             = "token"
    user_claim                  = "oid"
    tenant_claim                = "/ext/tenant"
    default_tenant              = "acme"
    permissions_claim           = "scope"
    subprotocols                = ["graphql-transport-ws", "mqtt"]
    allowed_tenants             = ["acme", "globex"]
    required_permission         = "connect"
    max_connections_per_user    = 3
    expire_with_token           = true
    log_level                   = "debug"
    away_grace_seconds          = 20
    cell_endpoints              = ["https://a.example.com/a", "https://b.example.com/b"]
    connect_grace_seconds       = 0
    tenant_shards               = 64
    management_endpoint_aliases = ["https://ws.example.com/production"]
    max_age_seconds             = 600
    max_payload_bytes           = 32768
    mailbox                     = true
    parts_percent               = 50
    receipts                    = true
  }

  # jwt_jwks_url excludes jwt_public_key, so it is the only unset variable.
  assert {
    condition     = setsubtract(keys(local.stack.functions.connect.environment), keys(aws_lambda_function.connect[0].environment[0].variables)) == toset(["JWT_JWKS_URL"])
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }

  assert {
    condition     = { for name in ["ALLOWED_TENANTS", "EXPIRE_WITH_TOKEN", "JWT_AUDIENCE", "MAX_CONNECTIONS_PER_USER", "SUBPROTOCOLS"] : name => aws_lambda_function.connect[0].environment[0].variables[name] } == { ALLOWED_TENANTS = "acme,globex", EXPIRE_WITH_TOKEN = "true", JWT_AUDIENCE = "streamer,mobile", MAX_CONNECTIONS_PER_USER = "3", SUBPROTOCOLS = "graphql-transport-ws,mqtt" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }

  assert {
    condition     = toset(keys(aws_lambda_function.this["delivery"].environment[0].variables)) == toset(keys(local.stack.functions.delivery.environment))
    error_message = "delivery: ${jsonencode(aws_lambda_function.this["delivery"].environment[0].variables)}"
  }

  assert {
    condition     = [for variables in [aws_lambda_function.connect[0].environment[0].variables, aws_lambda_function.this["delivery"].environment[0].variables] : variables["TENANT_SHARDS"]] == ["64", "64"]
    error_message = "Both functions must have TENANT_SHARDS from tenant_shards."
  }

  assert {
    condition     = aws_lambda_function.this["delivery"].environment[0].variables["CONNECT_GRACE_SECONDS"] == "0"
    error_message = "CONNECT_GRACE_SECONDS must be 0: zero is a value, not unset."
  }
}

run "management_endpoint_fills_in_placeholders" {
  command = plan

  variables {
    management_endpoint = "http://127.0.0.1:4566/_aws/execute-api/{api}/{stage}"
    stage               = "local"
  }

  assert {
    condition     = aws_lambda_function.this["delivery"].environment[0].variables["WEBSOCKET_ENDPOINT"] == "http://127.0.0.1:4566/_aws/execute-api/a1b2c3d4e5/local"
    error_message = "management endpoint: ${output.management_endpoint}"
  }
}

run "api_routes_and_logs_no_client_data" {
  command = plan

  variables {
    routes = {
      "$default" = { function_name = "router", invoke_arn = "arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/router/invocations" }
    }
  }

  assert {
    condition     = keys(aws_apigatewayv2_route.this) == ["$connect", "$default", "$disconnect"]
    error_message = "routes: ${jsonencode(keys(aws_apigatewayv2_route.this))}"
  }

  assert {
    condition     = aws_lambda_permission.route["$default"].function_name == "router" && aws_lambda_permission.route["$default"].source_arn == "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/production/$default"
    error_message = "API Gateway must be allowed to invoke the router."
  }

  assert {
    condition     = aws_apigatewayv2_stage.this[0].default_route_settings[0].logging_level == "OFF" && !aws_apigatewayv2_stage.this[0].default_route_settings[0].data_trace_enabled
    error_message = "Execution logs must be off: they contain query strings, and a query string may contain a token."
  }

  assert {
    condition     = !strcontains(aws_apigatewayv2_stage.this[0].access_log_settings[0].format, "querystring")
    error_message = "The access log must not contain query strings."
  }
}

run "selection_and_throttling_have_defaults" {
  command = plan

  assert {
    condition     = aws_apigatewayv2_api.this[0].route_selection_expression == "$request.body.type" && [aws_apigatewayv2_stage.this[0].default_route_settings[0].throttling_rate_limit, aws_apigatewayv2_stage.this[0].default_route_settings[0].throttling_burst_limit] == [2500, 1250]
    error_message = "The defaults must be the expression in stack.json and the limits of a newer Region."
  }
}

run "selection_and_throttling_can_be_set" {
  command = plan

  variables {
    route_selection_expression = "$request.body.action"
    throttling                 = { rate = 100 }
  }

  assert {
    condition     = aws_apigatewayv2_api.this[0].route_selection_expression == "$request.body.action" && [aws_apigatewayv2_stage.this[0].default_route_settings[0].throttling_rate_limit, aws_apigatewayv2_stage.this[0].default_route_settings[0].throttling_burst_limit] == [100, 1250]
    error_message = "A limit that is set must not change the other."
  }
}

run "own_connect_function_replaces_the_module_function" {
  command = plan

  variables {
    connect       = false
    disconnect    = false
    jwt_issuers   = null
    jwt_audiences = null
    routes        = { "$connect" = { function_name = "enter", invoke_arn = "arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/enter/invocations" } }
  }

  assert {
    condition     = keys(aws_apigatewayv2_route.this) == ["$connect"] && keys(output.functions) == ["delivery"] && length(aws_apigatewayv2_api.this) == 1 && output.connections_table == null
    error_message = "The API must have the caller's route only, and there must be no table."
  }
}

run "queues_are_standard_encrypted_and_need_tls" {
  command = plan

  assert {
    condition     = !aws_sqs_queue.outbound.fifo_queue && aws_sqs_queue.outbound.sqs_managed_sse_enabled && aws_sqs_queue.dead_letter.sqs_managed_sse_enabled
    error_message = "The queues must be encrypted standard queues."
  }

  assert {
    condition     = jsondecode(aws_sqs_queue_redrive_policy.outbound.redrive_policy).maxReceiveCount == 10
    error_message = "redrive policy: ${aws_sqs_queue_redrive_policy.outbound.redrive_policy}"
  }

  assert {
    condition     = jsondecode(aws_sqs_queue.dead_letter.redrive_allow_policy).sourceQueueArns == ["arn:aws:sqs:eu-central-1:123456789012:streamer-outbound"]
    error_message = "redrive allow policy: ${aws_sqs_queue.dead_letter.redrive_allow_policy}"
  }

  assert {
    condition     = keys(aws_sqs_queue_policy.this) == ["dead_letter", "outbound"] && one(data.aws_iam_policy_document.queue["outbound"].statement[0].condition).variable == "aws:SecureTransport"
    error_message = "The queues must deny calls without TLS."
  }
}

run "require_tls_false_removes_queue_policies" {
  command = plan

  variables {
    require_tls = false
  }

  assert {
    condition     = length(aws_sqs_queue_policy.this) == 0
    error_message = "No queue policy may deny calls without TLS."
  }
}

run "fifo_creates_high_throughput_queues" {
  command = plan

  variables {
    fifo = true
  }

  assert {
    condition     = [aws_sqs_queue.outbound.name, aws_sqs_queue.dead_letter.name] == ["streamer-outbound.fifo", "streamer-dead-letters.fifo"]
    error_message = "Names of FIFO queues must end with .fifo."
  }

  assert {
    condition     = aws_sqs_queue.outbound.deduplication_scope == "messageGroup" && aws_sqs_queue.outbound.fifo_throughput_limit == "perMessageGroupId" && !aws_sqs_queue.outbound.content_based_deduplication
    error_message = "The outbound queue must have high throughput, and no content-based deduplication, which would drop re-sends."
  }

  assert {
    condition     = jsondecode(aws_sqs_queue_redrive_policy.outbound.redrive_policy).maxReceiveCount == 1000
    error_message = "redrive policy: ${aws_sqs_queue_redrive_policy.outbound.redrive_policy}"
  }

  assert {
    condition     = contains(data.aws_iam_policy_document.delivery.statement[*].sid, "ChangeMessageVisibility")
    error_message = "The worker must be allowed to change the visibility of messages on a FIFO queue."
  }
}

run "table_has_indexes_and_protection" {
  command = plan

  assert {
    condition     = { for index in aws_dynamodb_table.connections[0].global_secondary_index : index.name => index.hash_key } == { by_user = "tenant_user", by_tenant = "tenant_shard" }
    error_message = "indexes: ${jsonencode(aws_dynamodb_table.connections[0].global_secondary_index)}"
  }

  assert {
    condition     = aws_dynamodb_table.connections[0].deletion_protection_enabled && aws_dynamodb_table.connections[0].point_in_time_recovery[0].enabled && aws_dynamodb_table.connections[0].ttl[0].attribute_name == "expires_at"
    error_message = "The table must be protected from deletion, have backups, and expire rows."
  }
}

run "roles_allow_only_necessary_actions" {
  command = plan

  assert {
    condition     = data.aws_iam_policy_document.connect[0].statement[*].sid == tolist(["PutConnection"])
    error_message = "connect: ${jsonencode(data.aws_iam_policy_document.connect[0].statement[*].sid)}"
  }

  assert {
    condition     = data.aws_iam_policy_document.disconnect[0].statement[*].sid == tolist(["DeleteConnection"])
    error_message = "disconnect: ${jsonencode(data.aws_iam_policy_document.disconnect[0].statement[*].sid)}"
  }

  assert {
    condition     = data.aws_iam_policy_document.delivery.statement[*].sid == tolist(["ReceiveMessages", "SendMessages", "FindRecipients", "DeleteGoneConnections", "PostToConnections"])
    error_message = "delivery: ${jsonencode(data.aws_iam_policy_document.delivery.statement[*].sid)}"
  }

  assert {
    condition     = one(one([for statement in data.aws_iam_policy_document.delivery.statement : statement if statement.sid == "PostToConnections"]).resources) == "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/production/POST/@connections/*"
    error_message = "The worker must be allowed to post to connections of its stage, and nothing else."
  }

  assert {
    condition     = data.aws_iam_policy_document.producer.statement[*].sid == tolist(["SendMessages"]) && one(one(data.aws_iam_policy_document.producer.statement).resources) == "arn:aws:sqs:eu-central-1:123456789012:outbound"
    error_message = "Producers must be allowed to send to the outbound queue, and nothing else."
  }

  assert {
    condition     = data.aws_iam_policy_document.telemetry["connect"].statement[*].sid == tolist(["WriteLogs", "SendTraces"])
    error_message = "telemetry: ${jsonencode(data.aws_iam_policy_document.telemetry["connect"].statement[*].sid)}"
  }

  assert {
    condition     = alltrue(flatten([for document in [data.aws_iam_policy_document.connect[0], data.aws_iam_policy_document.disconnect[0], data.aws_iam_policy_document.delivery, data.aws_iam_policy_document.producer] : [for statement in document.statement : [for action in statement.actions : !strcontains(action, "*")]]]))
    error_message = "No action may contain a wildcard."
  }
}

run "connection_limit_adds_three_permissions" {
  command = plan

  variables {
    max_connections_per_user = 5
  }

  assert {
    condition     = data.aws_iam_policy_document.connect[0].statement[*].sid == tolist(["PutConnection", "QueryUserConnections", "CloseOldestConnection", "DeleteClosedConnection"])
    error_message = "connect: ${jsonencode(data.aws_iam_policy_document.connect[0].statement[*].sid)}"
  }
}

run "kms_key_is_in_all_policies" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/k"
  }

  assert {
    condition     = aws_sqs_queue.outbound.kms_master_key_id == var.kms_key_arn && aws_sqs_queue.dead_letter.kms_master_key_id == var.kms_key_arn && aws_dynamodb_table.connections[0].server_side_encryption[0].kms_key_arn == var.kms_key_arn
    error_message = "Queues and table must be encrypted with the key."
  }

  assert {
    condition     = alltrue([for document in concat(values(data.aws_iam_policy_document.telemetry), [data.aws_iam_policy_document.delivery, data.aws_iam_policy_document.producer]) : anytrue([for statement in document.statement : contains(statement.resources, var.kms_key_arn)])])
    error_message = "Every role must be allowed to use the key."
  }
}

run "tracing_false_removes_trace_permission" {
  command = plan

  variables {
    tracing = false
  }

  assert {
    condition     = aws_lambda_function.this["delivery"].tracing_config[0].mode == "PassThrough" && !contains(data.aws_iam_policy_document.telemetry["delivery"].statement[*].sid, "SendTraces")
    error_message = "The worker must not be traced."
  }
}

run "alarms_notify_the_topic" {
  command = plan

  variables {
    alarm_topic_arn = "arn:aws:sns:eu-central-1:123456789012:alarms"
    alarms          = { oldest_message_seconds = 60 }
  }

  assert {
    condition     = length(output.alarms) == 16 && aws_cloudwatch_metric_alarm.this["dead-letters"].alarm_actions == toset([var.alarm_topic_arn])
    error_message = "alarms: ${jsonencode(output.alarms)}"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["oldest-message"].threshold == 60 && aws_cloudwatch_metric_alarm.this["delivery-latency"].threshold == 10000
    error_message = "A threshold that is set must not change the other thresholds."
  }

  assert {
    condition     = alltrue([for name in ["circuit-opened", "handed-back-age", "oldest-message", "undelivered"] : length(aws_cloudwatch_metric_alarm.this[name].alarm_actions) == 0]) && aws_cloudwatch_composite_alarm.delivery_failing.alarm_actions == toset([var.alarm_topic_arn])
    error_message = "An outage that several alarms see must be notified once, by delivery-failing."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.delivery_failing.alarm_rule == join(" OR ", [for name in ["handed-back-age", "undelivered", "oldest-message", "circuit-opened"] : "ALARM(\"streamer-${name}\")"])
    error_message = aws_cloudwatch_composite_alarm.delivery_failing.alarm_rule
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.this["dead-letters"].ok_actions) == 0 && aws_cloudwatch_metric_alarm.this["elsewhere"].ok_actions == toset([var.alarm_topic_arn])
    error_message = "The end of an alarm must be notified, except if dead letters may remain."
  }

  assert {
    condition     = one([for query in aws_cloudwatch_metric_alarm.this["failed-connects"].metric_query : query.metric[0].dimensions if query.id == "uncalled"]) == tomap({ ApiId = output.api_id, Stage = output.stage })
    error_message = "API Gateway's failed calls of the functions must be watched."
  }
}
