# One dashboard: outcomes and latency of messages, causes of delays, queue, functions, connections, the mailbox, and receipts.

locals {
  # Rows of widgets, with those of functions that are not created.
  all_widget_rows = [
    [
      {
        title = "Outcomes"
        stat  = "Sum"
        metrics = [
          ["Streamer", "Delivered", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Kept", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "HandedBack", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Undelivered", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Gone", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Expired", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Superseded", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Elsewhere", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "NoRecipient", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Expanded", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "ReceiptsWithoutQueue", "service", "delivery-worker", "stage", local.stage],
        ]
      },
      {
        title = "Dead letters by reason"
        stat  = "Sum"
        metrics = [
          ["Streamer", "Rejected", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Exhausted", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Poison", "service", "delivery-worker", "stage", local.stage],
          ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.dead_letter.name, { stat = "Maximum", label = "on the queue" }],
        ]
      },
    ],
    [
      {
        title = "Delivery latency, p50 and p99"
        stat  = "p99"
        metrics = [
          ["Streamer", "DeliveryLatency", "service", "delivery-worker", "stage", local.stage, { stat = "p50" }],
          ["Streamer", "DeliveryLatency", "service", "delivery-worker", "stage", local.stage],
        ]
      },
      {
        title = "Parts of the delivery latency, p99"
        stat  = "p99"
        metrics = [
          ["Streamer", "HandedBackAge", "service", "delivery-worker", "stage", local.stage, { stat = "Maximum", yAxis = "right" }],
          ["Streamer", "QueueAge", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "PostLatency", "service", "delivery-worker", "stage", local.stage],
        ]
      },
    ],
    [
      {
        title = "Causes of delayed posts"
        stat  = "Sum"
        metrics = [
          ["Streamer", "Throttles", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "SlowClients", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Retries", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "CircuitOpened", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "CircuitOpen", "service", "delivery-worker", "stage", local.stage, { stat = "Maximum" }],
        ]
      },
      {
        title = "Posts in flight per execution environment"
        stat  = "Average"
        metrics = [
          ["Streamer", "ConcurrencyLimit", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "ConcurrencyUtilization", "service", "delivery-worker", "stage", local.stage, { yAxis = "right" }],
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
        title = "Parts queue"
        stat  = "Maximum"
        metrics = [
          ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", local.parts_name],
          ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", local.parts_name],
          ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", local.parts_name, { yAxis = "right" }],
          ["Streamer", "PartLatency", "service", "delivery-worker", "stage", local.stage, { yAxis = "right" }],
          ["Streamer", "PartQueueAge", "service", "delivery-worker", "stage", local.stage, { yAxis = "right" }],
        ]
      },
      {
        title = "Worker"
        stat  = "Sum"
        metrics = [
          ["AWS/Lambda", "Invocations", "FunctionName", local.function_names[local.worker]],
          ["AWS/Lambda", "Errors", "FunctionName", local.function_names[local.worker]],
          ["AWS/Lambda", "Throttles", "FunctionName", local.function_names[local.worker]],
          ["AWS/Lambda", "ConcurrentExecutions", "FunctionName", local.function_names[local.worker], { stat = "Maximum", yAxis = "right" }],
        ]
      },
      {
        title = "Connect and disconnect"
        stat  = "Sum"
        metrics = [
          ["AWS/Lambda", "Errors", "FunctionName", local.function_names["connect"]],
          ["AWS/Lambda", "Throttles", "FunctionName", local.function_names["connect"]],
          ["AWS/Lambda", "Errors", "FunctionName", local.function_names["disconnect"]],
          ["AWS/Lambda", "Throttles", "FunctionName", local.function_names["disconnect"]],
        ]
      },
    ],
    [
      {
        title = "Connections"
        stat  = "Sum"
        metrics = [
          ["Streamer", "ConnectionsOpened", "service", "connect-handler", "stage", local.stage],
          ["Streamer", "ConnectionsRefused", "service", "connect-handler", "stage", local.stage],
          ["Streamer", "ConnectionsFailed", "service", "connect-handler", "stage", local.stage],
          ["Streamer", "ConnectionsMismatched", "service", "connect-handler", "stage", local.stage],
          ["Streamer", "ConnectionDuration", "service", "disconnect-handler", "stage", local.stage, { stat = "p50", yAxis = "right" }],
        ]
      },
      {
        title = "Connect and disconnect latency, p99"
        stat  = "p99"
        metrics = [
          ["Streamer", "ConnectLatency", "service", "connect-handler", "stage", local.stage],
          ["Streamer", "DisconnectLatency", "service", "disconnect-handler", "stage", local.stage],
        ]
      },
      {
        title = "API"
        stat  = "Sum"
        metrics = [
          ["AWS/ApiGateway", "ConnectCount", "ApiId", local.api_id, "Stage", local.api_stage],
          ["AWS/ApiGateway", "MessageCount", "ApiId", local.api_id, "Stage", local.api_stage],
          ["AWS/ApiGateway", "ClientError", "ApiId", local.api_id, "Stage", local.api_stage],
          ["AWS/ApiGateway", "ExecutionError", "ApiId", local.api_id, "Stage", local.api_stage],
          ["AWS/ApiGateway", "IntegrationError", "ApiId", local.api_id, "Stage", local.api_stage],
        ]
      },
    ],
    [
      {
        title = "Mailbox"
        stat  = "Sum"
        metrics = [
          ["Streamer", "Kept", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "MailboxCollisions", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Syncs", "service", "mailbox-handler", "stage", local.stage],
          ["Streamer", "PagesPosted", "service", "mailbox-handler", "stage", local.stage],
          ["Streamer", "PageMessages", "service", "mailbox-handler", "stage", local.stage],
          ["Streamer", "Gaps", "service", "mailbox-handler", "stage", local.stage],
        ]
      },
      {
        title = "Mailbox handler"
        stat  = "Sum"
        metrics = [
          ["AWS/Lambda", "Errors", "FunctionName", local.function_names["mailbox"]],
          ["AWS/Lambda", "Throttles", "FunctionName", local.function_names["mailbox"]],
          ["AWS/Lambda", "Duration", "FunctionName", local.function_names["mailbox"], { stat = "p99", yAxis = "right" }],
          ["Streamer", "InvalidFrames", "service", "mailbox-handler", "stage", local.stage],
          ["Streamer", "UnknownConnections", "service", "mailbox-handler", "stage", local.stage],
          ["Streamer", "ReceiptsWithoutQueue", "service", "mailbox-handler", "stage", local.stage],
        ]
      },
      {
        title = "Mailbox latency"
        stat  = "p99"
        metrics = [
          ["Streamer", "MailboxAppendLatency", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "PageLatency", "service", "mailbox-handler", "stage", local.stage],
        ]
      },
      {
        title = "Mailbox table"
        stat  = "Sum"
        metrics = [
          ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", local.mailbox_name],
          ["AWS/DynamoDB", "ConsumedReadCapacityUnits", "TableName", local.mailbox_name],
          ["AWS/DynamoDB", "WriteThrottleEvents", "TableName", local.mailbox_name],
          ["AWS/DynamoDB", "ReadThrottleEvents", "TableName", local.mailbox_name],
        ]
      },
    ],
    [
      {
        title = "Receipts"
        stat  = "Sum"
        metrics = [
          ["Streamer", "Receipts", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "ReceiptsHandedBack", "service", "delivery-worker", "stage", local.stage],
          ["Streamer", "Acknowledgments", "service", "mailbox-handler", "stage", local.stage],
        ]
      },
      {
        title = "Receipts queue"
        stat  = "Maximum"
        metrics = [
          ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", local.receipts_name],
          ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", local.receipts_name],
          ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", local.receipts_name, { yAxis = "right" }],
        ]
      },
    ],
  ]

  # The second element of a metric is its name, and the fourth is the value of its first dimension: a service or a
  # function's name, among others.
  absent_metrics = concat(
    flatten([
      for short, function in local.stack.functions : [function.package, local.function_names[short]]
      if !contains(keys(local.functions), short)
    ]),
    var.mailbox ? [] : [local.mailbox_name, "Kept", "MailboxAppendLatency", "MailboxCollisions"],
    var.receipts ? ["ReceiptsWithoutQueue"] : [local.receipts_name, "Receipts", "ReceiptsHandedBack", "Acknowledgments"],
    local.has_parts_queue ? [] : [local.parts_name, "PartLatency", "PartQueueAge"],
  )
  present_widget_rows = [
    for widgets in local.all_widget_rows : [
      for widget in widgets : merge(widget, { metrics = [for metric in widget.metrics : metric if length(setintersection(local.absent_metrics, [metric[1], metric[3]])) == 0] })
      if anytrue([for metric in widget.metrics : length(setintersection(local.absent_metrics, [metric[1], metric[3]])) == 0])
    ]
  ]

  # The widgets of a row have the same width; a dashboard has 24 columns.
  widget_rows = [for widgets in local.present_widget_rows : widgets if length(widgets) > 0]
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
