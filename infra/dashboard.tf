# One dashboard: outcomes and latency of messages, causes of delays, queue, functions, and connections.

locals {
  # Rows of widgets. The widgets of a row have the same width; a dashboard has 24 columns.
  widget_rows = [
    [
      {
        title = "Outcomes"
        stat  = "Sum"
        metrics = [
          ["Streamer", "Delivered", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "HandedBack", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "Gone", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "Expired", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "Superseded", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "Elsewhere", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "NoRecipient", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "Expanded", "service", "delivery-worker", "stage", var.stage],
        ]
      },
      {
        title = "Dead letters by reason"
        stat  = "Sum"
        metrics = [
          ["Streamer", "Rejected", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "Exhausted", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "Poison", "service", "delivery-worker", "stage", var.stage],
          ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.dead_letter.name, { stat = "Maximum", label = "on the queue" }],
        ]
      },
    ],
    [
      {
        title = "Delivery latency, p50 and p99"
        stat  = "p99"
        metrics = [
          ["Streamer", "DeliveryLatency", "service", "delivery-worker", "stage", var.stage, { stat = "p50" }],
          ["Streamer", "DeliveryLatency", "service", "delivery-worker", "stage", var.stage],
        ]
      },
      {
        title = "Parts of the delivery latency, p99"
        stat  = "p99"
        metrics = [
          ["Streamer", "QueueAge", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "PostLatency", "service", "delivery-worker", "stage", var.stage],
        ]
      },
    ],
    [
      {
        title = "Causes of delayed posts"
        stat  = "Sum"
        metrics = [
          ["Streamer", "Throttles", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "SlowClients", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "Retries", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "CircuitOpened", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "CircuitOpen", "service", "delivery-worker", "stage", var.stage, { stat = "Maximum" }],
        ]
      },
      {
        title = "Posts in flight per execution environment"
        stat  = "Average"
        metrics = [
          ["Streamer", "ConcurrencyLimit", "service", "delivery-worker", "stage", var.stage],
          ["Streamer", "ConcurrencyUtilization", "service", "delivery-worker", "stage", var.stage, { yAxis = "right" }],
        ]
      },
    ],
    [
      {
        title = "Outbound queue"
        stat  = "Maximum"
        metrics = [
          ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.outbound.name],
          ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", aws_sqs_queue.outbound.name],
          ["AWS/SQS", "ApproximateNumberOfMessagesDelayed", "QueueName", aws_sqs_queue.outbound.name],
          ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", aws_sqs_queue.outbound.name, { yAxis = "right" }],
        ]
      },
      {
        title = "Worker"
        stat  = "Sum"
        metrics = [
          ["AWS/Lambda", "Invocations", "FunctionName", aws_lambda_function.this[local.worker].function_name],
          ["AWS/Lambda", "Errors", "FunctionName", aws_lambda_function.this[local.worker].function_name],
          ["AWS/Lambda", "Throttles", "FunctionName", aws_lambda_function.this[local.worker].function_name],
          ["AWS/Lambda", "ConcurrentExecutions", "FunctionName", aws_lambda_function.this[local.worker].function_name, { stat = "Maximum", yAxis = "right" }],
        ]
      },
      {
        title = "Connect and disconnect"
        stat  = "Sum"
        metrics = [
          ["AWS/Lambda", "Errors", "FunctionName", aws_lambda_function.this["connect"].function_name],
          ["AWS/Lambda", "Throttles", "FunctionName", aws_lambda_function.this["connect"].function_name],
          ["AWS/Lambda", "Errors", "FunctionName", aws_lambda_function.this["disconnect"].function_name],
          ["AWS/Lambda", "Throttles", "FunctionName", aws_lambda_function.this["disconnect"].function_name],
        ]
      },
    ],
    [
      {
        title = "Connections"
        stat  = "Sum"
        metrics = [
          ["Streamer", "ConnectionsOpened", "service", "connect-handler", "stage", var.stage],
          ["Streamer", "ConnectionsRefused", "service", "connect-handler", "stage", var.stage],
          ["Streamer", "ConnectionDuration", "service", "disconnect-handler", "stage", var.stage, { stat = "p50", yAxis = "right" }],
        ]
      },
      {
        title = "Connect and disconnect latency, p99"
        stat  = "p99"
        metrics = [
          ["Streamer", "ConnectLatency", "service", "connect-handler", "stage", var.stage],
          ["Streamer", "DisconnectLatency", "service", "disconnect-handler", "stage", var.stage],
        ]
      },
      {
        title = "API"
        stat  = "Sum"
        metrics = [
          ["AWS/ApiGateway", "ConnectCount", "ApiId", aws_apigatewayv2_api.this.id, "Stage", var.stage],
          ["AWS/ApiGateway", "MessageCount", "ApiId", aws_apigatewayv2_api.this.id, "Stage", var.stage],
          ["AWS/ApiGateway", "ClientError", "ApiId", aws_apigatewayv2_api.this.id, "Stage", var.stage],
          ["AWS/ApiGateway", "ExecutionError", "ApiId", aws_apigatewayv2_api.this.id, "Stage", var.stage],
          ["AWS/ApiGateway", "IntegrationError", "ApiId", aws_apigatewayv2_api.this.id, "Stage", var.stage],
        ]
      },
    ],
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = local.global_name
  dashboard_body = jsonencode({
    widgets = flatten([
      for row, widgets in local.widget_rows : [
        for column, widget in widgets : {
          type   = "metric"
          x      = column * 24 / length(widgets)
          y      = row * 6
          width  = 24 / length(widgets)
          height = 6
          properties = {
            title   = widget.title
            view    = "timeSeries"
            region  = local.region
            stat    = widget.stat
            period  = 60
            metrics = widget.metrics
          }
        }
      ]
    ])
  })
}
