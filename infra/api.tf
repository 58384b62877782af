# The WebSocket API: routes, their integrations, and a stage.

locals {
  routes = merge(
    {
      for route, short in local.stack.api.routes : route => {
        function_name = aws_lambda_function.this[short].function_name
        invoke_arn    = aws_lambda_function.this[short].invoke_arn
      }
    },
    var.routes,
  )
}

resource "aws_apigatewayv2_api" "this" {
  name                         = local.name
  disable_execute_api_endpoint = var.disable_default_endpoint
  protocol_type                = "WEBSOCKET"
  route_selection_expression   = local.stack.api.route_selection_expression
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

  api_id             = aws_apigatewayv2_api.this.id
  integration_type   = "AWS_PROXY"
  integration_method = "POST"
  integration_uri    = each.value.invoke_arn
}

resource "aws_apigatewayv2_route" "this" {
  #checkov:skip=CKV_AWS_309:WebSocket APIs have no JWT authorizer. connect-handler verifies the token behind $connect, the only route that can have an authorizer.
  for_each = local.routes

  api_id    = aws_apigatewayv2_api.this.id
  route_key = each.key
  target    = "integrations/${aws_apigatewayv2_integration.this[each.key].id}"
}

resource "aws_lambda_permission" "route" {
  for_each = local.routes

  action        = "lambda:InvokeFunction"
  function_name = each.value.function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.this.execution_arn}/${var.stage}/${each.key}"
}

resource "aws_apigatewayv2_stage" "this" {
  #checkov:skip=CKV2_AWS_51:Clients authenticate with tokens. Client certificates need a custom domain, which belongs to the caller.
  api_id = aws_apigatewayv2_api.this.id
  name   = var.stage
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
    # If these are unset, the provider sends 0, which refuses every request.
    throttling_rate_limit  = var.throttling.rate
    throttling_burst_limit = var.throttling.burst
  }

  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.access.arn
    format          = jsonencode(local.stack.api.access_log)
  }
}
