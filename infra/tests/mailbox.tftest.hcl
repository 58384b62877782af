# The mailbox: off by default, all of its parts with it on, beside an API that exists, and invalid settings.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

override_resource {
  target          = aws_dynamodb_table.connections
  override_during = plan
  values          = { arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/connections" }
}

override_resource {
  target          = aws_dynamodb_table.mailbox
  override_during = plan
  values          = { arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/mailbox" }
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
  mailbox       = true
}

run "mailbox_is_off_by_default" {
  command = plan

  variables {
    mailbox = false
  }

  assert {
    condition     = length(aws_dynamodb_table.mailbox) + length(aws_apigatewayv2_route.mock) + length(aws_apigatewayv2_integration.mock) + length(data.aws_iam_policy_document.mailbox) == 0 && !contains(keys(output.functions), "mailbox") && length(setintersection(keys(aws_apigatewayv2_route.this), ["streamer.ack", "streamer.sync"])) == 0
    error_message = "functions: ${jsonencode(output.functions)}, routes: ${jsonencode(keys(aws_apigatewayv2_route.this))}"
  }

  assert {
    condition     = length([for name in keys(aws_lambda_function.this["delivery"].environment[0].variables) : name if startswith(name, "MAILBOX")]) == 0 && !contains(data.aws_iam_policy_document.delivery.statement[*].sid, "KeepMessages")
    error_message = "The worker must neither know the mailbox nor have its permissions."
  }

  assert {
    condition     = output.mailbox_table == null && output.mailbox_table_arn == null && length([for name in output.alarms : name if strcontains(name, "mailbox") || strcontains(name, "sync")]) == 0
    error_message = "alarms: ${jsonencode(output.alarms)}"
  }

  assert {
    condition     = !strcontains(lower(aws_cloudwatch_dashboard.this.dashboard_body), "mailbox") && !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "Kept")
    error_message = "The dashboard must not show metrics that nothing writes."
  }

  assert {
    condition     = terraform_data.guard["mailbox"].input.name == null && !terraform_data.guard["mailbox"].input.protected
    error_message = "guard: ${jsonencode(terraform_data.guard["mailbox"].input)}"
  }
}

run "table_keeps_messages_safe" {
  command = plan

  assert {
    condition     = [aws_dynamodb_table.mailbox[0].name, aws_dynamodb_table.mailbox[0].billing_mode, aws_dynamodb_table.mailbox[0].hash_key, aws_dynamodb_table.mailbox[0].range_key] == ["streamer_mailbox", "PAY_PER_REQUEST", "stream", "item"]
    error_message = "The mailbox table must have the name and keys in stack.json."
  }

  assert {
    condition     = aws_dynamodb_table.mailbox[0].deletion_protection_enabled && aws_dynamodb_table.mailbox[0].point_in_time_recovery[0].enabled && aws_dynamodb_table.mailbox[0].ttl[0].attribute_name == "expires_at"
    error_message = "The mailbox table must be protected from deletion, have backups, and expire items."
  }

  assert {
    condition     = length(aws_dynamodb_table.mailbox[0].global_secondary_index) == 0 && length(aws_dynamodb_table.mailbox[0].attribute) == 2
    error_message = "attributes: ${jsonencode(aws_dynamodb_table.mailbox[0].attribute)}"
  }

  assert {
    condition     = output.mailbox_table == "streamer_mailbox" && endswith(output.mailbox_table_arn, ":table/mailbox")
    error_message = "outputs: ${jsonencode([output.mailbox_table, output.mailbox_table_arn])}"
  }
}

run "name_and_key_reach_the_table" {
  command = plan

  variables {
    name        = "chat"
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/k"
  }

  assert {
    condition     = aws_dynamodb_table.mailbox[0].name == "chat_mailbox" && aws_dynamodb_table.mailbox[0].server_side_encryption[0].kms_key_arn == var.kms_key_arn
    error_message = "table: ${aws_dynamodb_table.mailbox[0].name}"
  }

  assert {
    condition     = contains(data.aws_iam_policy_document.telemetry["mailbox"].statement[*].sid, "DecryptWithKey")
    error_message = "The handler must be allowed to use the key."
  }
}

run "function_has_settings_of_the_others" {
  command = plan

  variables {
    log_level          = "debug"
    mailbox_generation = "1"
  }

  assert {
    condition     = aws_lambda_function.this["mailbox"].environment[0].variables == tomap({ CONNECTIONS_TABLE = "streamer_connections", LOG_LEVEL = "debug", MAILBOX_GENERATION = "1", MAILBOX_TABLE = "streamer_mailbox", STAGE = "production", TIMEOUT_SECONDS = "10", WEBSOCKET_ENDPOINT = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production" })
    error_message = "mailbox: ${jsonencode(aws_lambda_function.this["mailbox"].environment[0].variables)}"
  }

  assert {
    condition     = aws_lambda_function.this["mailbox"].memory_size == 256 && aws_lambda_function.this["mailbox"].timeout == 10 && endswith(aws_lambda_function.this["mailbox"].filename, "/mailbox-handler-${var.architecture}.zip") && aws_lambda_function.this["mailbox"].tracing_config[0].mode == "Active"
    error_message = "The function must have the settings in stack.json, and its own package."
  }

  assert {
    condition     = aws_cloudwatch_log_group.function["mailbox"].name == "/aws/lambda/streamer-mailbox" && aws_iam_role.function["mailbox"].name == "streamer-mailbox-eu-central-1"
    error_message = "The function must have a log group and a role of its own."
  }
}

run "worker_gets_the_mailbox" {
  command = plan

  variables {
    mailbox_max_messages = 500
  }

  assert {
    condition     = { for name, value in aws_lambda_function.this["delivery"].environment[0].variables : name => value if startswith(name, "MAILBOX") } == { MAILBOX_GENERATION = "0", MAILBOX_MAX_MESSAGES = "500", MAILBOX_TABLE = "streamer_mailbox" }
    error_message = "delivery: ${jsonencode(aws_lambda_function.this["delivery"].environment[0].variables)}"
  }
}

run "roles_allow_only_necessary_actions" {
  command = plan

  assert {
    condition = { for statement in data.aws_iam_policy_document.mailbox[0].statement : statement.sid => "${join(" ", sort(statement.actions))} on ${one(statement.resources)}" } == {
      ReadConnection  = "dynamodb:GetItem on arn:aws:dynamodb:eu-central-1:123456789012:table/connections"
      ReadMessages    = "dynamodb:GetItem dynamodb:Query on arn:aws:dynamodb:eu-central-1:123456789012:table/mailbox"
      RegisterDevices = "dynamodb:DeleteItem dynamodb:PutItem on arn:aws:dynamodb:eu-central-1:123456789012:table/mailbox"
      RenewStreams    = "dynamodb:UpdateItem on arn:aws:dynamodb:eu-central-1:123456789012:table/mailbox"
      PostPages       = "execute-api:ManageConnections on arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/production/POST/@connections/*"
    }
    error_message = "mailbox: ${jsonencode(data.aws_iam_policy_document.mailbox[0].statement)}"
  }

  assert {
    condition     = one([for statement in data.aws_iam_policy_document.delivery.statement : "${join(" ", sort(statement.actions))} on ${one(statement.resources)}" if statement.sid == "KeepMessages"]) == "dynamodb:BatchWriteItem dynamodb:DeleteItem dynamodb:GetItem dynamodb:PutItem dynamodb:Query dynamodb:UpdateItem on arn:aws:dynamodb:eu-central-1:123456789012:table/mailbox"
    error_message = "delivery: ${jsonencode(data.aws_iam_policy_document.delivery.statement)}"
  }
}

run "sync_invokes_the_function" {
  command = plan

  assert {
    condition     = aws_apigatewayv2_integration.this["streamer.sync"].integration_type == "AWS_PROXY" && aws_apigatewayv2_integration.this["streamer.sync"].integration_uri == aws_lambda_function.this["mailbox"].invoke_arn && aws_apigatewayv2_route.this["streamer.sync"].authorizer_id == null
    error_message = "integration: ${jsonencode(aws_apigatewayv2_integration.this["streamer.sync"])}"
  }

  assert {
    condition     = aws_lambda_permission.route["streamer.sync"].function_name == "streamer-mailbox" && aws_lambda_permission.route["streamer.sync"].source_arn == "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/production/streamer.sync"
    error_message = "API Gateway must be allowed to invoke the function for its route, and for no other."
  }
}

run "ping_is_answered_without_a_function" {
  command = plan

  assert {
    condition     = aws_apigatewayv2_integration.mock["streamer.ping"].integration_type == "MOCK" && aws_apigatewayv2_integration.mock["streamer.ping"].request_templates == tomap({ "$default" = "{\"statusCode\":200}" })
    error_message = "integration: ${jsonencode(aws_apigatewayv2_integration.mock["streamer.ping"])}"
  }

  # API Gateway rejects an unescaped $default in a template selection expression, and an escaped one in a key.
  assert {
    condition     = [aws_apigatewayv2_integration.mock["streamer.ping"].template_selection_expression, aws_apigatewayv2_integration_response.mock["streamer.ping"].template_selection_expression] == ["\\$default", "\\$default"] && [aws_apigatewayv2_integration_response.mock["streamer.ping"].integration_response_key, aws_apigatewayv2_route.mock["streamer.ping"].route_response_selection_expression, aws_apigatewayv2_route_response.mock["streamer.ping"].route_response_key] == ["$default", "$default", "$default"]
    error_message = "Expressions must escape $default, and keys must not."
  }

  assert {
    condition     = aws_apigatewayv2_integration_response.mock["streamer.ping"].response_templates == tomap({ "$default" = "{\"type\":\"streamer.pong\"}" })
    error_message = "response: ${jsonencode(aws_apigatewayv2_integration_response.mock["streamer.ping"].response_templates)}"
  }

  assert {
    condition     = aws_apigatewayv2_route.mock["streamer.ping"].route_key == "streamer.ping" && !contains(keys(aws_lambda_permission.route), "streamer.ping")
    error_message = "The route must have the key of a client's ping, and need no permission."
  }
}

run "alarms_and_dashboard_show_the_mailbox" {
  command = plan

  assert {
    condition     = length(output.alarms) == 19 && length(setsubtract(["streamer-failed-syncs", "streamer-mailbox-errors", "streamer-mailbox-throttles"], output.alarms)) == 0
    error_message = "alarms: ${jsonencode(output.alarms)}"
  }

  assert {
    condition     = slice(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[*].properties.title, 12, 16) == ["Mailbox", "Mailbox handler", "Mailbox latency", "Mailbox table"]
    error_message = "widgets: ${jsonencode(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[*].properties.title)}"
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[15].properties.metrics[0] == ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", "streamer_mailbox"]
    error_message = "The dashboard must show the capacity that the mailbox table consumes."
  }
}

run "smallest_account_reserves_nothing" {
  command = plan

  assert {
    condition     = aws_lambda_function.this["mailbox"].reserved_concurrent_executions == -1
    error_message = "Lambda would refuse to reserve any of 10."
  }
}

run "part_of_an_execution_reserves_nothing" {
  command = plan

  variables {
    account_concurrency = 9
  }

  assert {
    condition     = aws_lambda_function.this["mailbox"].reserved_concurrent_executions == -1
    error_message = "A reservation of 0 would stop every sync."
  }
}

run "syncs_are_limited_to_a_tenth" {
  command = plan

  variables {
    account_concurrency = 1000
  }

  assert {
    condition     = aws_lambda_function.this["mailbox"].reserved_concurrent_executions == 100 && aws_lambda_function.connect[0].reserved_concurrent_executions == -1
    error_message = "Syncs must leave concurrency to connect: ${aws_lambda_function.this["mailbox"].reserved_concurrent_executions}"
  }
}

run "worker_reservation_comes_first" {
  command = plan

  variables {
    account_concurrency = 113
    requests_per_second = 1500
  }

  assert {
    condition     = [for short in ["delivery", "mailbox"] : aws_lambda_function.this[short].reserved_concurrent_executions] == [3, -1]
    error_message = "Lambda would refuse to reserve 3 and 11 of 113."
  }
}

run "tenth_is_reserved_from_its_room_on" {
  command = plan

  variables {
    account_concurrency = 114
    requests_per_second = 1500
  }

  assert {
    condition     = [for short in ["delivery", "mailbox"] : aws_lambda_function.this[short].reserved_concurrent_executions] == [3, 11]
    error_message = "3 and 11 can be reserved of 114."
  }
}

run "mailbox_concurrency_can_be_set" {
  command = plan

  variables {
    account_concurrency = 1000
    mailbox_concurrency = 5
  }

  assert {
    condition     = aws_lambda_function.this["mailbox"].reserved_concurrent_executions == 5
    error_message = "reserved: ${aws_lambda_function.this["mailbox"].reserved_concurrent_executions}"
  }
}

run "rejects_reservation_without_room" {
  command = plan

  variables {
    account_concurrency = 1000
    mailbox_concurrency = 899
  }

  expect_failures = [aws_lambda_function.this]
}

run "rejects_reservation_of_zero" {
  command = plan

  variables {
    mailbox_concurrency = 0
  }

  expect_failures = [var.mailbox_concurrency]
}

run "existing_api_gets_the_routes" {
  command = plan

  variables {
    api           = { id = "e5d4c3b2a1", stage = "prod" }
    table         = true
    jwt_issuers   = null
    jwt_audiences = null
  }

  assert {
    condition     = keys(output.functions) == ["delivery", "mailbox"] && { for key, route in aws_apigatewayv2_route.this : key => route.api_id } == { "streamer.ack" = "e5d4c3b2a1", "streamer.sync" = "e5d4c3b2a1" } && aws_apigatewayv2_route.mock["streamer.ping"].api_id == "e5d4c3b2a1" && aws_apigatewayv2_route_response.mock["streamer.ping"].api_id == "e5d4c3b2a1" && aws_apigatewayv2_integration_response.mock["streamer.ping"].api_id == "e5d4c3b2a1"
    error_message = "routes: ${jsonencode(keys(aws_apigatewayv2_route.this))}"
  }

  assert {
    condition     = aws_lambda_permission.route["streamer.sync"].source_arn == "arn:aws:execute-api:eu-central-1:123456789012:e5d4c3b2a1/prod/streamer.sync" && one(one([for statement in data.aws_iam_policy_document.mailbox[0].statement : statement if statement.sid == "PostPages"]).resources) == "arn:aws:execute-api:eu-central-1:123456789012:e5d4c3b2a1/prod/POST/@connections/*"
    error_message = "Permissions must name the API that exists, and its stage."
  }
}

run "action_selects_the_routes_too" {
  command = plan

  variables {
    route_selection_expression = "$request.body.action"
  }

  assert {
    condition     = contains(keys(aws_apigatewayv2_route.this), "streamer.sync")
    error_message = "Frames of clients have the field action, too."
  }
}

run "rejects_existing_api_without_table" {
  command = plan

  variables {
    api           = { id = "e5d4c3b2a1", stage = "prod" }
    jwt_issuers   = null
    jwt_audiences = null
  }

  expect_failures = [var.mailbox]
}

run "rejects_other_route_selection" {
  command = plan

  variables {
    route_selection_expression = "$request.body.kind"
  }

  expect_failures = [var.mailbox]
}

run "rejects_second_sync_route" {
  command = plan

  variables {
    routes = { "streamer.sync" = { function_name = "router", invoke_arn = "arn" } }
  }

  expect_failures = [var.routes]
}

run "rejects_second_ping_route" {
  command = plan

  variables {
    routes = { "streamer.ping" = { function_name = "router", invoke_arn = "arn" } }
  }

  expect_failures = [var.routes]
}

run "rejects_empty_generation" {
  command = plan

  variables {
    mailbox_generation = ""
  }

  expect_failures = [var.mailbox_generation]
}

run "rejects_generation_with_separator" {
  command = plan

  variables {
    mailbox_generation = "1-2"
  }

  expect_failures = [var.mailbox_generation]
}

run "rejects_generation_of_nine_characters" {
  command = plan

  variables {
    mailbox_generation = "123456789"
  }

  expect_failures = [var.mailbox_generation]
}

run "rejects_too_few_messages" {
  command = plan

  variables {
    mailbox_max_messages = 99
  }

  expect_failures = [var.mailbox_max_messages]
}

run "rejects_too_many_messages" {
  command = plan

  variables {
    mailbox_max_messages = 10001
  }

  expect_failures = [var.mailbox_max_messages]
}

run "rejects_part_of_a_message" {
  command = plan

  variables {
    mailbox_max_messages = 100.5
  }

  expect_failures = [var.mailbox_max_messages]
}

run "rejects_failed_sync_share_of_zero" {
  command = plan

  variables {
    alarms = { failed_sync_percent = 0 }
  }

  expect_failures = [var.alarms]
}

run "rejects_failed_sync_minimum_of_zero" {
  command = plan

  variables {
    alarms = { failed_sync_minimum = 0 }
  }

  expect_failures = [var.alarms]
}
