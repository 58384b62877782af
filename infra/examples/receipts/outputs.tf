output "websocket_url" {
  description = "URL that clients connect to."
  value       = module.streamer.websocket_url
}

output "queue_url" {
  description = "URL of the queue that producers send to."
  value       = module.streamer.queue_url
}

output "event_bus" {
  description = "Name of the event bus with the receipts, for rules of yours."
  value       = aws_cloudwatch_event_bus.receipts.name
}
