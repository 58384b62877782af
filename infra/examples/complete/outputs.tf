output "websocket_url" {
  description = "URL that clients connect to."
  value       = module.streamer.websocket_url
}

output "queue_url" {
  description = "URL of the queue that producers send to."
  value       = module.streamer.queue_url
}

output "mailbox_table" {
  description = "Name of the mailbox table."
  value       = module.streamer.mailbox_table
}

output "producer_role_arn" {
  description = "ARN of the role with which a job sends messages."
  value       = aws_iam_role.producer.arn
}
