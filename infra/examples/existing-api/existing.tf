# A chat as many examples show it: an API, a table of connections, and a function that posts in a loop. Only
# local.steps, the environment variables for Streamer, was not there before.

locals {
  functions = {
    connect     = "$connect"
    disconnect  = "$disconnect"
    sendmessage = "sendmessage"
  }
  management_endpoint = replace(aws_apigatewayv2_stage.production.invoke_url, "wss://", "https://")

  environment = merge(
    {
      TABLE    = aws_dynamodb_table.connections.name
      ENDPOINT = local.management_endpoint
    },
    local.steps,
  )
}

resource "aws_dynamodb_table" "connections" {
  #checkov:skip=CKV_AWS_28:The rows are worth nothing after 2 h.
  #checkov:skip=CKV_AWS_119:The rows hold no secret.
  name         = "chat-connections"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "connectionId"

  attribute {
    name = "connectionId"
    type = "S"
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_partition" "current" {}

resource "aws_iam_role" "chat" {
  name               = "chat"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy_attachment" "logs" {
  role       = aws_iam_role.chat.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

data "aws_iam_policy_document" "chat" {
  statement {
    actions   = ["dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:Scan"]
    resources = [aws_dynamodb_table.connections.arn]
  }

  statement {
    actions   = ["execute-api:ManageConnections"]
    resources = ["${aws_apigatewayv2_api.chat.execution_arn}/production/POST/@connections/*"]
  }
}

resource "aws_iam_role_policy" "chat" {
  name   = "chat"
  role   = aws_iam_role.chat.id
  policy = data.aws_iam_policy_document.chat.json
}

resource "aws_lambda_function" "chat" {
  #checkov:skip=CKV_AWS_50:The example is about the API.
  #checkov:skip=CKV_AWS_115:A concurrency limit would refuse messages of clients.
  #checkov:skip=CKV_AWS_116:API Gateway invokes the functions synchronously.
  #checkov:skip=CKV_AWS_117:The functions call nothing inside a VPC.
  #checkov:skip=CKV_AWS_173:No variable is a secret.
  #checkov:skip=CKV_AWS_272:Code signing needs a signing profile and a bucket of the account.
  for_each = local.functions

  function_name    = "chat-${each.key}"
  role             = aws_iam_role.chat.arn
  runtime          = "python3.13"
  handler          = "${each.key}.handler"
  filename         = var.functions_zip
  source_code_hash = filebase64sha256(var.functions_zip)
  timeout          = 29
  memory_size      = 256

  environment {
    variables = local.environment
  }
}

resource "aws_apigatewayv2_api" "chat" {
  name                       = "chat"
  protocol_type              = "WEBSOCKET"
  route_selection_expression = "$request.body.action"
}

resource "aws_apigatewayv2_integration" "chat" {
  for_each = local.functions

  api_id             = aws_apigatewayv2_api.chat.id
  integration_type   = "AWS_PROXY"
  integration_method = "POST"
  integration_uri    = aws_lambda_function.chat[each.key].invoke_arn
}

resource "aws_apigatewayv2_route" "chat" {
  #checkov:skip=CKV_AWS_309:The chat admits every client.
  for_each = local.functions

  api_id    = aws_apigatewayv2_api.chat.id
  route_key = each.value
  target    = "integrations/${aws_apigatewayv2_integration.chat[each.key].id}"
}

resource "aws_lambda_permission" "chat" {
  for_each = local.functions

  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.chat[each.key].function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.chat.execution_arn}/production/${each.value}"
}

resource "aws_apigatewayv2_stage" "production" {
  #checkov:skip=CKV_AWS_76:The chat has no access log.
  #checkov:skip=CKV2_AWS_51:The chat admits every client.
  api_id      = aws_apigatewayv2_api.chat.id
  name        = "production"
  auto_deploy = true

  default_route_settings {
    throttling_rate_limit  = 1000
    throttling_burst_limit = 500
  }
}
