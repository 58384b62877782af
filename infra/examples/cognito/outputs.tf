output "websocket_url" {
  description = "URL that clients connect to."
  value       = module.streamer.websocket_url
}

output "user_pool_id" {
  description = "ID of the user pool."
  value       = aws_cognito_user_pool.users.id
}

output "client_id" {
  description = "ID of the user pool's client, with which the application signs users in."
  value       = aws_cognito_user_pool_client.app.id
}

output "queue_url" {
  description = "URL of the queue that producers send to: --queue-url of `streamer`."
  value       = module.streamer.queue_url
}

output "connections_table" {
  description = "Name of the connection table: --table of `streamer`."
  value       = module.streamer.connections_table
}

output "producer_policy_arn" {
  description = "ARN of the IAM policy for the roles of further producers."
  value       = module.streamer.producer_policy_arn
}
