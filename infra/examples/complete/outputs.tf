output "websocket_url" {
  description = "Where clients connect."
  value       = module.streamer.websocket_url
}

output "queue_url" {
  description = "The queue that producers send to."
  value       = module.streamer.queue_url
}

output "producer_role_arn" {
  description = "The role that a job sends messages with."
  value       = aws_iam_role.producer.arn
}
