output "websocket_url" {
  description = "URL that clients connect to."
  value       = module.streamer.websocket_url
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
