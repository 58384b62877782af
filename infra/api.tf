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
      error_message = "Without the API's default endpoint the worker has nowhere to post: set management_endpoint to that of your custom domain."
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
  #checkov:skip=CKV_AWS_309:WebSocket APIs know no JWT authorizer. connect-handler verifies the token behind $connect, and only $connect can be authorized.
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
  #checkov:skip=CKV2_AWS_51:Clients show tokens. Client certificates need a custom domain, which is the caller's.
  api_id = aws_apigatewayv2_api.this.id
  name   = var.stage
  # What is changed is deployed at once, a removed route too: of a deployment of its own, Terraform would take the new
  # snapshot before it removes the route.
  # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-apigatewayv2-stage.html
  auto_deploy = true
  tags        = var.tags

  default_route_settings {
    detailed_metrics_enabled = true
    # Execution logs hold queries, and a query may hold a token.
    logging_level      = "OFF"
    data_trace_enabled = false
    # Left out, the provider sends 0, which refuses everything.
    throttling_rate_limit  = var.throttling.rate
    throttling_burst_limit = var.throttling.burst
  }

  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.access.arn
    format          = jsonencode(local.stack.api.access_log)
  }
}
