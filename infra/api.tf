# The WebSocket API, or the one that exists; routes, their integrations, an authorizer, and a stage.

locals {
  api_id    = local.creates_api ? one(aws_apigatewayv2_api.this[*].id) : var.api.id
  api_stage = local.creates_api ? local.stage : var.api.stage

  execution_arn = (
    local.creates_api
    ? one(aws_apigatewayv2_api.this[*].execution_arn)
    : "arn:${local.partition}:execute-api:${local.region}:${local.account}:${var.api.id}"
  )
  default_endpoint = (
    local.creates_api
    ? replace(one(aws_apigatewayv2_api.this[*].api_endpoint), "wss://", "https://")
    : "https://${var.api.id}.execute-api.${local.region}.${data.aws_partition.current.dns_suffix}"
  )
  endpoint_pattern    = local.creates_api ? var.management_endpoint : var.api.management_endpoint
  management_endpoint = replace(replace(coalesce(local.endpoint_pattern, "${local.default_endpoint}/{stage}"), "{api}", local.api_id), "{stage}", local.api_stage)

  # Route keys that invoke a function of the module.
  own_routes = {
    for route, short in local.stack.api.routes : route => short
    if local.creates_function[short] && lookup({ connect = var.connect_route, disconnect = var.disconnect_route }, short, true)
  }
  routes = merge(
    {
      for route, short in local.own_routes : route => {
        function_name = local.deployed_functions[short].function_name
        invoke_arn    = local.deployed_functions[short].invoke_arn
      }
    },
    var.routes,
  )

  # Answers of API Gateway itself, by route key.
  mock_responses = { for route, response in local.stack.api.mock_responses : route => jsonencode(response) if var.mailbox }

  # Without try, which would make it unknown while the function is.
  creates_authorizer = var.authorizer == null ? false : var.authorizer.function != null
  authorizer_id      = local.creates_authorizer ? one(aws_apigatewayv2_authorizer.this[*].id) : try(var.authorizer.id, null)
}

resource "aws_apigatewayv2_api" "this" {
  count = local.creates_api ? 1 : 0

  name                         = local.name
  disable_execute_api_endpoint = var.disable_default_endpoint
  protocol_type                = "WEBSOCKET"
  route_selection_expression   = coalesce(var.route_selection_expression, local.stack.api.route_selection_expression)
  tags                         = var.tags

  lifecycle {
    precondition {
      condition     = !var.disable_default_endpoint || var.management_endpoint != null
      error_message = "disable_default_endpoint removes the endpoint that the worker posts to: set management_endpoint to the URL of your custom domain."
    }
  }
}

resource "aws_apigatewayv2_integration" "this" {
  for_each = local.routes

  api_id             = local.api_id
  integration_type   = "AWS_PROXY"
  integration_method = "POST"
  integration_uri    = each.value.invoke_arn
}

resource "aws_apigatewayv2_route" "this" {
  #checkov:skip=CKV_AWS_309:Only `$connect` can have an authorizer. Without one, connect-handler verifies the token behind it.
  for_each = local.routes

  api_id             = local.api_id
  route_key          = each.key
  target             = "integrations/${aws_apigatewayv2_integration.this[each.key].id}"
  authorization_type = each.key == "$connect" && var.authorizer != null ? "CUSTOM" : null
  authorizer_id      = each.key == "$connect" ? local.authorizer_id : null
}

resource "aws_lambda_permission" "route" {
  for_each = local.routes

  action        = "lambda:InvokeFunction"
  function_name = each.value.function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${local.execution_arn}/${local.api_stage}/${each.key}"
}

# A mock integration answers with the template of its integration response, without a function. The client receives the
# answer only if the route has a route response.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-integration-responses.html
# In a selection expression, $ begins a variable: \$default is the key `$default` itself.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-selection-expressions.html
resource "aws_apigatewayv2_integration" "mock" {
  for_each = local.mock_responses

  api_id                        = local.api_id
  integration_type              = "MOCK"
  template_selection_expression = "\\$default"
  request_templates             = { "$default" = jsonencode({ statusCode = 200 }) }
}

resource "aws_apigatewayv2_integration_response" "mock" {
  for_each = local.mock_responses

  api_id                        = local.api_id
  integration_id                = aws_apigatewayv2_integration.mock[each.key].id
  integration_response_key      = "$default"
  template_selection_expression = "\\$default"
  response_templates            = { "$default" = each.value }
}

resource "aws_apigatewayv2_route" "mock" {
  #checkov:skip=CKV_AWS_309:Only `$connect` can have an authorizer.
  for_each = local.mock_responses

  api_id                              = local.api_id
  route_key                           = each.key
  target                              = "integrations/${aws_apigatewayv2_integration.mock[each.key].id}"
  route_response_selection_expression = "$default"
}

resource "aws_apigatewayv2_route_response" "mock" {
  for_each = local.mock_responses

  api_id             = local.api_id
  route_id           = aws_apigatewayv2_route.mock[each.key].id
  route_response_key = "$default"
}

resource "aws_apigatewayv2_authorizer" "this" {
  count = local.creates_authorizer ? 1 : 0

  api_id           = local.api_id
  name             = "${local.name}-connect"
  authorizer_type  = "REQUEST"
  authorizer_uri   = "arn:${local.partition}:apigateway:${local.region}:lambda:path/2015-03-31/functions/${var.authorizer.function.arn}/invocations"
  identity_sources = var.authorizer.function.identity_sources
}

resource "aws_lambda_permission" "authorizer" {
  count = local.creates_authorizer ? 1 : 0

  action        = "lambda:InvokeFunction"
  function_name = var.authorizer.function.arn
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${local.execution_arn}/authorizers/${local.authorizer_id}"
}

resource "aws_apigatewayv2_stage" "this" {
  #checkov:skip=CKV2_AWS_51:Clients authenticate with tokens. Client certificates need a custom domain, which belongs to the caller.
  count = local.creates_api ? 1 : 0

  api_id = local.api_id
  name   = local.stage
  # API Gateway deploys each change at once, including removed routes. With an aws_apigatewayv2_deployment, Terraform
  # would take the snapshot before it removes the route.
  # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-apigatewayv2-stage.html
  auto_deploy = true
  tags        = var.tags

  default_route_settings {
    detailed_metrics_enabled = true
    # Execution logs contain query strings, and a query string may contain a token.
    logging_level      = "OFF"
    data_trace_enabled = false
    # If these are unset, the provider sends 0, which refuses every request. The defaults are the limits of an account
    # in a newer Region.
    throttling_rate_limit  = coalesce(try(var.throttling.rate, null), 2500)
    throttling_burst_limit = coalesce(try(var.throttling.burst, null), 1250)
  }

  access_log_settings {
    destination_arn = one(aws_cloudwatch_log_group.access[*].arn)
    format          = jsonencode(local.stack.api.access_log)
  }
}
