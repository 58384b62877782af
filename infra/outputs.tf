output "api_id" {
  description = "ID of the WebSocket API."
  value       = local.api_id
}

output "stage" {
  description = "Name of the stage."
  value       = local.creates_api ? one(aws_apigatewayv2_stage.this[*].name) : var.api.stage
}

output "websocket_url" {
  description = "URL that clients connect to, on the API's default endpoint; null beside an `api` that exists."
  value       = one(aws_apigatewayv2_stage.this[*].invoke_url)
}

output "management_endpoint" {
  description = "URL at which the functions post to connections and close them."
  value       = local.management_endpoint
}

output "queue_url" {
  description = "URL of the outbound queue, which producers send to."
  value       = aws_sqs_queue.outbound.url
}

output "queue_arn" {
  description = "ARN of the outbound queue."
  value       = aws_sqs_queue.outbound.arn
}

output "parts_queue_url" {
  description = "URL of the parts queue, which only the worker uses; null without `parts_percent`."
  value       = one(aws_sqs_queue.parts[*].url)
}

output "dead_letter_queue_url" {
  description = "URL of the dead-letter queue."
  value       = aws_sqs_queue.dead_letter.url
}

output "dead_letter_queue_arn" {
  description = "ARN of the dead-letter queue."
  value       = aws_sqs_queue.dead_letter.arn
}

output "connections_table" {
  description = "Name of the connection table; null without one."
  value       = one(aws_dynamodb_table.connections[*].name)
}

output "mailbox_table" {
  description = "Name of the mailbox table; null without `mailbox`."
  value       = one(aws_dynamodb_table.mailbox[*].name)
}

output "mailbox_table_arn" {
  description = "ARN of the mailbox table; null without `mailbox`."
  value       = one(aws_dynamodb_table.mailbox[*].arn)
}

output "receipts_queue_url" {
  description = "URL of the receipts queue, which a program of yours reads; null without `receipts`."
  value       = one(aws_sqs_queue.receipts[*].url)
}

output "receipts_queue_arn" {
  description = "ARN of the receipts queue; null without `receipts`."
  value       = one(aws_sqs_queue.receipts[*].arn)
}

output "functions" {
  description = "Names of the functions, by short name (`connect`, `disconnect`, `delivery`, `mailbox`)."
  value       = { for short, function in local.deployed_functions : short => function.function_name }
}

output "function_arns" {
  description = "ARNs of the functions, by short name, for functions of yours that invoke them."
  value       = { for short, function in local.deployed_functions : short => function.arn }
}

output "invoke_arns" {
  description = "ARNs with which integrations of yours invoke the functions, by short name."
  value       = { for short, function in local.deployed_functions : short => function.invoke_arn }
}

output "roles" {
  description = "Names of the functions' roles, by the function's short name."
  value       = { for short, role in aws_iam_role.function : short => role.name }
}

output "producer_policy_arn" {
  description = "ARN of the IAM policy that allows producers to send messages."
  value       = aws_iam_policy.producer.arn
}

output "dashboard" {
  description = "Name of the dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

output "alarms" {
  description = "Names of the alarms."
  value = concat(
    values(aws_cloudwatch_metric_alarm.this)[*].alarm_name,
    aws_cloudwatch_metric_alarm.refused_connects[*].alarm_name,
    [aws_cloudwatch_composite_alarm.delivery_failing.alarm_name],
  )
}
