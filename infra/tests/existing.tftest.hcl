# Streamer beside an API that exists: only what the caller asks for.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

override_resource {
  target          = aws_sqs_queue.outbound
  override_during = plan
  values          = { url = "https://sqs.eu-central-1.amazonaws.com/123456789012/outbound" }
}

override_resource {
  target          = aws_sqs_queue.dead_letter
  override_during = plan
  values          = { url = "https://sqs.eu-central-1.amazonaws.com/123456789012/dead-letters" }
}

variables {
  api = { id = "e5d4c3b2a1", stage = "prod" }
}

run "only_the_worker_is_created" {
  command = plan

  assert {
    condition     = keys(aws_lambda_function.this) == ["delivery"] && keys(aws_iam_role.function) == ["delivery"] && keys(aws_cloudwatch_log_group.function) == ["delivery"]
    error_message = "functions: ${jsonencode(keys(aws_lambda_function.this))}"
  }

  assert {
    condition     = length(aws_apigatewayv2_api.this) + length(aws_apigatewayv2_stage.this) + length(aws_apigatewayv2_route.this) + length(aws_apigatewayv2_integration.this) + length(aws_lambda_permission.route) + length(aws_apigatewayv2_authorizer.this) + length(aws_cloudwatch_log_group.access) + length(aws_dynamodb_table.connections) == 0
    error_message = "No API, stage, route, authorizer, access log or table may be created."
  }

  assert {
    condition     = aws_lambda_function.this["delivery"].environment[0].variables == tomap({ DEAD_LETTER_QUEUE_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/dead-letters", MAX_AGE_SECONDS = "7800", MAX_POSTS_PER_SECOND = "500", QUEUE_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/outbound", STAGE = "prod", TIMEOUT_SECONDS = "30", WEBSOCKET_ENDPOINT = "https://e5d4c3b2a1.execute-api.eu-central-1.amazonaws.com/prod" })
    error_message = "delivery: ${jsonencode(aws_lambda_function.this["delivery"].environment[0].variables)}"
  }

  assert {
    condition     = output.api_id == "e5d4c3b2a1" && output.stage == "prod" && output.websocket_url == null && output.connections_table == null
    error_message = "outputs: ${jsonencode([output.api_id, output.stage, output.websocket_url, output.connections_table])}"
  }
}

run "worker_may_only_post_and_use_queues" {
  command = plan

  assert {
    condition     = data.aws_iam_policy_document.delivery.statement[*].sid == tolist(["ReceiveMessages", "SendMessages", "PostToConnections"])
    error_message = "delivery: ${jsonencode(data.aws_iam_policy_document.delivery.statement[*].sid)}"
  }

  assert {
    condition     = one(one([for statement in data.aws_iam_policy_document.delivery.statement : statement if statement.sid == "PostToConnections"]).resources) == "arn:aws:execute-api:eu-central-1:123456789012:e5d4c3b2a1/prod/POST/@connections/*"
    error_message = "The worker must be allowed to post to connections of the API's stage."
  }
}

run "alarms_and_dashboard_show_only_the_worker" {
  command = plan

  assert {
    condition     = toset(output.alarms) == toset(["streamer-circuit-opened", "streamer-dead-letters", "streamer-delivery-errors", "streamer-delivery-failing", "streamer-delivery-latency", "streamer-delivery-throttles", "streamer-handed-back-age", "streamer-oldest-message", "streamer-undelivered"])
    error_message = "alarms: ${jsonencode(output.alarms)}"
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[*].properties.title == ["Outcomes", "Dead letters by reason", "Delivery latency, p50 and p99", "Parts of the delivery latency, p99", "Causes of delayed posts", "Posts in flight per execution environment", "Outbound queue", "Worker", "API"]
    error_message = "widgets: ${jsonencode(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[*].properties.title)}"
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[8].width == 24 && jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[8].properties.metrics[0] == ["AWS/ApiGateway", "ConnectCount", "ApiId", "e5d4c3b2a1", "Stage", "prod"]
    error_message = "The API's widget must fill its row and show the API that exists."
  }
}

run "endpoint_and_metrics_have_own_names" {
  command = plan

  variables {
    stage = "chat"
    api   = { id = "e5d4c3b2a1", stage = "prod", management_endpoint = "https://ws.example.com" }
  }

  assert {
    condition     = { for name in ["STAGE", "WEBSOCKET_ENDPOINT"] : name => aws_lambda_function.this["delivery"].environment[0].variables[name] } == { STAGE = "chat", WEBSOCKET_ENDPOINT = "https://ws.example.com" }
    error_message = "delivery: ${jsonencode(aws_lambda_function.this["delivery"].environment[0].variables)}"
  }

  assert {
    condition     = endswith(one(one([for statement in data.aws_iam_policy_document.delivery.statement : statement if statement.sid == "PostToConnections"]).resources), ":e5d4c3b2a1/prod/POST/@connections/*")
    error_message = "The policy must name the API's stage, not the metrics' dimension."
  }
}

run "functions_without_routes_come_with_table" {
  command = plan

  variables {
    connect          = true
    connect_route    = false
    disconnect       = true
    disconnect_route = false
    jwt_issuers      = ["https://auth.example.com"]
    jwt_audiences    = ["streamer"]
  }

  assert {
    condition     = keys(output.function_arns) == ["connect", "delivery", "disconnect"] && endswith(output.invoke_arns["connect"], "/invocations") && length(aws_apigatewayv2_route.this) == 0 && length(aws_dynamodb_table.connections) == 1
    error_message = "Functions and table must be created, and no routes."
  }

  assert {
    condition     = aws_lambda_function.connect[0].environment[0].variables == tomap({ CONNECTIONS_TABLE = "streamer_connections", JWT_AUDIENCE = "streamer", JWT_ISSUER = "https://auth.example.com", STAGE = "prod", WEBSOCKET_ENDPOINT = "https://e5d4c3b2a1.execute-api.eu-central-1.amazonaws.com/prod" })
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }

  assert {
    condition     = contains(data.aws_iam_policy_document.delivery.statement[*].sid, "FindRecipients") && length(output.alarms) == 16
    error_message = "The worker must be allowed to find recipients, and all alarms must exist."
  }

  assert {
    condition     = [for query in aws_cloudwatch_metric_alarm.this["failed-connects"].metric_query : query.id if query.id != "result"] == ["failed"]
    error_message = "Failed calls of another API's integrations must not count."
  }
}

run "routes_belong_to_the_existing_api" {
  command = plan

  variables {
    connect       = true
    jwt_issuers   = ["https://auth.example.com"]
    jwt_audiences = ["streamer"]
    routes = {
      "$disconnect" = { function_name = "leave", invoke_arn = "arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/leave/invocations" }
    }
  }

  assert {
    condition     = { for key, route in aws_apigatewayv2_route.this : key => route.api_id } == { "$connect" = "e5d4c3b2a1", "$disconnect" = "e5d4c3b2a1" }
    error_message = "routes: ${jsonencode(keys(aws_apigatewayv2_route.this))}"
  }

  assert {
    condition     = aws_lambda_permission.route["$disconnect"].source_arn == "arn:aws:execute-api:eu-central-1:123456789012:e5d4c3b2a1/prod/$disconnect" && aws_lambda_permission.route["$disconnect"].function_name == "leave"
    error_message = "The API that exists must be allowed to invoke the functions."
  }

  assert {
    condition     = !contains(keys(output.functions), "disconnect") && jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[8].properties.metrics == [["AWS/Lambda", "Errors", "FunctionName", "streamer-connect"], ["AWS/Lambda", "Throttles", "FunctionName", "streamer-connect"]]
    error_message = "The dashboard must not show a function that does not exist."
  }
}

run "table_alone_serves_rows_of_other_functions" {
  command = plan

  variables {
    table = true
  }

  assert {
    condition     = keys(output.functions) == ["delivery"] && aws_lambda_function.this["delivery"].environment[0].variables["CONNECTIONS_TABLE"] == "streamer_connections" && contains(output.alarms, "streamer-elsewhere")
    error_message = "The worker must use the table."
  }
}

run "authorizer_function_guards_connect" {
  command = plan

  variables {
    connect       = true
    jwt_issuers   = ["https://auth.example.com"]
    jwt_audiences = ["streamer"]
    authorizer    = { function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize", identity_sources = ["route.request.querystring.token"] } }
    routes = {
      "$default" = { function_name = "router", invoke_arn = "arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/router/invocations" }
    }
  }

  assert {
    condition     = { for key, route in aws_apigatewayv2_route.this : key => join(" ", compact([route.authorization_type, route.authorizer_id])) } == { "$connect" = "CUSTOM auth01", "$default" = "" }
    error_message = "Only $connect may have the authorizer."
  }

  assert {
    condition     = aws_apigatewayv2_authorizer.this[0].authorizer_uri == "arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/arn:aws:lambda:eu-central-1:123456789012:function:authorize/invocations" && aws_apigatewayv2_authorizer.this[0].identity_sources == toset(["route.request.querystring.token"])
    error_message = "authorizer: ${aws_apigatewayv2_authorizer.this[0].authorizer_uri}"
  }

  assert {
    condition     = aws_lambda_permission.authorizer[0].source_arn == "arn:aws:execute-api:eu-central-1:123456789012:e5d4c3b2a1/authorizers/auth01"
    error_message = "The API must be allowed to invoke the authorizer."
  }
}

run "existing_authorizer_is_used_by_id" {
  command = plan

  variables {
    authorizer = { id = "theirs" }
    routes = {
      "$connect" = { function_name = "enter", invoke_arn = "arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/enter/invocations" }
    }
  }

  assert {
    condition     = aws_apigatewayv2_route.this["$connect"].authorizer_id == "theirs" && length(aws_apigatewayv2_authorizer.this) == 0 && length(aws_lambda_permission.authorizer) == 0
    error_message = "The API's own authorizer must be used, and none created."
  }
}

run "rejects_settings_of_an_own_api" {
  command = plan

  variables {
    management_endpoint = "https://ws.example.com"
  }

  expect_failures = [var.api]
}

run "rejects_stage_throttling_beside_api" {
  command = plan

  variables {
    throttling = { rate = 100 }
  }

  expect_failures = [var.api]
}

run "rejects_route_selection_beside_api" {
  command = plan

  variables {
    route_selection_expression = "$request.body.action"
  }

  expect_failures = [var.api]
}

run "rejects_url_as_api_id" {
  command = plan

  variables {
    api = { id = "https://e5d4c3b2a1.execute-api.eu-central-1.amazonaws.com", stage = "prod" }
  }

  expect_failures = [var.api]
}

run "rejects_websocket_url_as_management_endpoint" {
  command = plan

  variables {
    api = { id = "e5d4c3b2a1", stage = "prod", management_endpoint = "wss://ws.example.com" }
  }

  expect_failures = [var.api]
}

run "rejects_connect_without_table" {
  command = plan

  variables {
    connect       = true
    table         = false
    jwt_issuers   = ["https://auth.example.com"]
    jwt_audiences = ["streamer"]
  }

  expect_failures = [var.table]
}

run "rejects_connect_without_key" {
  command = plan

  variables {
    connect = true
  }

  expect_failures = [var.jwt_public_key]
}

run "rejects_token_settings_without_connect" {
  command = plan

  variables {
    allowed_tenants = ["acme"]
  }

  expect_failures = [aws_lambda_function.this]
}

run "rejects_second_connect_route" {
  command = plan

  variables {
    connect       = true
    jwt_issuers   = ["https://auth.example.com"]
    jwt_audiences = ["streamer"]
    routes        = { "$connect" = { function_name = "enter", invoke_arn = "arn" } }
  }

  expect_failures = [var.routes]
}

run "rejects_authorizer_without_connect_route" {
  command = plan

  variables {
    authorizer = { id = "theirs" }
  }

  expect_failures = [var.authorizer]
}

run "rejects_authorizer_with_id_and_function" {
  command = plan

  variables {
    authorizer = { id = "theirs", function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize" } }
    routes     = { "$connect" = { function_name = "enter", invoke_arn = "arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/enter/invocations" } }
  }

  expect_failures = [var.authorizer]
}
