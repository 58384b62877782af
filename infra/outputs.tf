output "api_id" {
  description = "The WebSocket API's id."
  value       = aws_apigatewayv2_api.this.id
}

output "stage" {
  description = "The stage's name."
  value       = aws_apigatewayv2_stage.this.name
}

output "websocket_url" {
  description = "Where clients connect, at the API's default endpoint."
  value       = aws_apigatewayv2_stage.this.invoke_url
}

output "management_endpoint" {
  description = "Where the functions post to connections and close them."
  value       = local.management_endpoint
}

output "queue_url" {
  description = "The outbound queue's URL, to which producers send."
  value       = aws_sqs_queue.outbound.url
}

output "queue_arn" {
  description = "The outbound queue's ARN."
  value       = aws_sqs_queue.outbound.arn
}

output "dead_letter_queue_url" {
  description = "The dead-letter queue's URL."
  value       = aws_sqs_queue.dead_letter.url
}

output "dead_letter_queue_arn" {
  description = "The dead-letter queue's ARN."
  value       = aws_sqs_queue.dead_letter.arn
}

output "connections_table" {
  description = "The connection table's name."
  value       = aws_dynamodb_table.connections.name
}

output "functions" {
  description = "The functions' names, by their short names."
  value       = { for short, function in aws_lambda_function.this : short => function.function_name }
}

output "roles" {
  description = "The names of the functions' roles, by the functions' short names."
  value       = { for short, role in aws_iam_role.function : short => role.name }
}

output "producer_policy_arn" {
  description = "The policy for whoever sends messages."
  value       = aws_iam_policy.producer.arn
}

output "dashboard" {
  description = "The dashboard's name."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

output "alarms" {
  description = "The alarms' names."
  value = concat(
    values(aws_cloudwatch_metric_alarm.this)[*].alarm_name,
    [aws_cloudwatch_metric_alarm.refused_connects.alarm_name],
  )
}
