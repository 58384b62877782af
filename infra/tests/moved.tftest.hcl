# A deployment of an older version keeps its resources: they move to their present addresses.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
}

run "older_deployment_is_applied" {
  state_key = "deployment"

  module {
    source = "./tests/moved"
  }
}

run "resources_move_without_replacement" {
  command   = plan
  state_key = "deployment"

  assert {
    condition = {
      api              = aws_apigatewayv2_api.this[0].id
      stage            = aws_apigatewayv2_stage.this[0].id
      access           = aws_cloudwatch_log_group.access[0].id
      refused_connects = aws_cloudwatch_metric_alarm.refused_connects[0].id
      connect_errors   = aws_cloudwatch_metric_alarm.this["connect-errors"].id
      connect          = aws_lambda_function.connect[0].id
      connections      = aws_dynamodb_table.connections[0].id
    } == run.older_deployment_is_applied.ids
    error_message = "A resource without its id would be created again."
  }
}
