# Keeps the resources of deployments whose state has an older address for them.

# Before these resources became optional.

moved {
  from = aws_apigatewayv2_api.this
  to   = aws_apigatewayv2_api.this[0]
}

moved {
  from = aws_apigatewayv2_stage.this
  to   = aws_apigatewayv2_stage.this[0]
}

moved {
  from = aws_cloudwatch_log_group.access
  to   = aws_cloudwatch_log_group.access[0]
}

moved {
  from = aws_cloudwatch_metric_alarm.refused_connects
  to   = aws_cloudwatch_metric_alarm.refused_connects[0]
}

moved {
  from = aws_dynamodb_table.connections
  to   = aws_dynamodb_table.connections[0]
}

# When each metric had an alarm resource of its own.

moved {
  from = aws_cloudwatch_metric_alarm.oldest_message
  to   = aws_cloudwatch_metric_alarm.this["oldest-message"]
}

moved {
  from = aws_cloudwatch_metric_alarm.dead_letters
  to   = aws_cloudwatch_metric_alarm.this["dead-letters"]
}

moved {
  from = aws_cloudwatch_metric_alarm.circuit_opened
  to   = aws_cloudwatch_metric_alarm.this["circuit-opened"]
}

moved {
  from = aws_cloudwatch_metric_alarm.elsewhere
  to   = aws_cloudwatch_metric_alarm.this["elsewhere"]
}

moved {
  from = aws_cloudwatch_metric_alarm.delivery_latency
  to   = aws_cloudwatch_metric_alarm.this["delivery-latency"]
}

moved {
  from = aws_cloudwatch_metric_alarm.errors["connect"]
  to   = aws_cloudwatch_metric_alarm.this["connect-errors"]
}

moved {
  from = aws_cloudwatch_metric_alarm.errors["disconnect"]
  to   = aws_cloudwatch_metric_alarm.this["disconnect-errors"]
}

moved {
  from = aws_cloudwatch_metric_alarm.errors["delivery"]
  to   = aws_cloudwatch_metric_alarm.this["delivery-errors"]
}

moved {
  from = aws_cloudwatch_metric_alarm.throttles["connect"]
  to   = aws_cloudwatch_metric_alarm.this["connect-throttles"]
}

moved {
  from = aws_cloudwatch_metric_alarm.throttles["disconnect"]
  to   = aws_cloudwatch_metric_alarm.this["disconnect-throttles"]
}

moved {
  from = aws_cloudwatch_metric_alarm.throttles["delivery"]
  to   = aws_cloudwatch_metric_alarm.this["delivery-throttles"]
}

# Before connect depended on the worker.

moved {
  from = aws_lambda_function.this["connect"]
  to   = aws_lambda_function.connect[0]
}
