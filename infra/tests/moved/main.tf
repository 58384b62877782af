# Resources at their addresses in the state of older deployments.

resource "aws_apigatewayv2_api" "this" {
  name                       = "streamer"
  protocol_type              = "WEBSOCKET"
  route_selection_expression = "$request.body.type"
}

resource "aws_apigatewayv2_stage" "this" {
  #checkov:skip=CKV_AWS_76:Only the address matters.
  #checkov:skip=CKV2_AWS_51:Only the address matters.
  api_id = aws_apigatewayv2_api.this.id
  name   = "production"
}

resource "aws_cloudwatch_log_group" "access" {
  #checkov:skip=CKV_AWS_66:Only the address matters.
  #checkov:skip=CKV_AWS_158:Only the address matters.
  #checkov:skip=CKV_AWS_338:Only the address matters.
  name = "/aws/apigateway/streamer/access"
}

resource "aws_cloudwatch_metric_alarm" "refused_connects" {
  alarm_name          = "streamer-refused-connects"
  comparison_operator = "GreaterThanThreshold"
  evaluation_periods  = 1
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each = toset(["connect"])

  alarm_name          = "streamer-connect-errors"
  comparison_operator = "GreaterThanThreshold"
  evaluation_periods  = 1
}

resource "aws_dynamodb_table" "connections" {
  #checkov:skip=CKV_AWS_28:Only the address matters.
  #checkov:skip=CKV_AWS_119:Only the address matters.
  name         = "streamer_connections"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "connection_id"

  attribute {
    name = "connection_id"
    type = "S"
  }
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_50:Only the address matters.
  #checkov:skip=CKV_AWS_115:Only the address matters.
  #checkov:skip=CKV_AWS_116:Only the address matters.
  #checkov:skip=CKV_AWS_117:Only the address matters.
  #checkov:skip=CKV_AWS_272:Only the address matters.
  for_each = toset(["connect"])

  function_name = "streamer-connect"
  role          = "arn:aws:iam::123456789012:role/streamer-connect"
  image_uri     = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/streamer:1"
  package_type  = "Image"
}

output "ids" {
  value = local.ids
}

locals {
  ids = {
    api              = aws_apigatewayv2_api.this.id
    stage            = aws_apigatewayv2_stage.this.id
    access           = aws_cloudwatch_log_group.access.id
    refused_connects = aws_cloudwatch_metric_alarm.refused_connects.id
    connect_errors   = aws_cloudwatch_metric_alarm.errors["connect"].id
    connect          = aws_lambda_function.this["connect"].id
    connections      = aws_dynamodb_table.connections.id
  }
}
