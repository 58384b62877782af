output "topic_arn" {
  description = "ARN of the topic to which producers publish messages for users and tenants."
  value       = aws_sns_topic.messages.arn
}

output "publisher_policy_arn" {
  description = "ARN of the IAM policy that allows producers to publish."
  value       = aws_iam_policy.publisher.arn
}

output "websocket_urls" {
  description = "URLs that clients connect to, by cell."
  value       = { first = module.first.websocket_url, second = module.second.websocket_url }
}

output "queue_urls" {
  description = "URLs of the outbound queues, by cell, for messages that concern one cell: those for connections, and kept messages."
  value       = { first = module.first.queue_url, second = module.second.queue_url }
}

output "receipts_queue_urls" {
  description = "URLs of the receipts queues, by cell."
  value       = { first = module.first.receipts_queue_url, second = module.second.receipts_queue_url }
}
