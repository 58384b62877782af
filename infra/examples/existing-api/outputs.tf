output "websocket_url" {
  description = "URL that clients connect to."
  value       = aws_apigatewayv2_stage.production.invoke_url
}

output "api_id" {
  description = "ID of the API."
  value       = aws_apigatewayv2_api.chat.id
}

output "table" {
  description = "Name of the chat's own table."
  value       = aws_dynamodb_table.connections.name
}

output "streamer" {
  description = "Streamer's queue, functions and table; null in step 0."
  value = one([
    for streamer in module.streamer : {
      queue_url         = streamer.queue_url
      connections_table = streamer.connections_table
      functions         = streamer.functions
    }
  ])
}
