# Alarms. Each description says what it means, and what to do first.

locals {
  alarm_actions = var.alarm_topic_arn == null ? [] : [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "oldest_message" {
  alarm_name          = "${local.name}-oldest-message"
  alarm_description   = "Messages wait: the worker does not keep up, or does not run. Look at the worker's Errors and Throttles, then at Throttles of API Gateway on the dashboard; without any, raise requests_per_second."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.outbound.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.oldest_message_seconds
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  alarm_name          = "${local.name}-dead-letters"
  alarm_description   = "There are messages that nobody could deliver. Read their attributes streamer.reason and streamer.detail; without them, SQS has moved a message whose workers crashed or were throttled. Send them again when the cause is gone."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead_letter.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "circuit_opened" {
  alarm_name          = "${local.name}-circuit-opened"
  alarm_description   = "Half of an environment's posts failed, so it left the endpoint alone for a while; the messages wait. Read the causes in the worker's log: 403 and 404 are a wrong policy or endpoint, 5xx and timeouts are API Gateway's."
  namespace           = "Streamer"
  metric_name         = "CircuitOpened"
  dimensions          = { service = "delivery-worker", stage = var.stage }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "elsewhere" {
  alarm_name          = "${local.name}-elsewhere"
  alarm_description   = "Messages wait since their users or tenants are connected at another endpoint only. The worker's log names it in cause. After a change of management_endpoint, add the old one to management_endpoint_aliases; where it is another API, send to that API's queue."
  namespace           = "Streamer"
  metric_name         = "Elsewhere"
  dimensions          = { service = "delivery-worker", stage = var.stage }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "refused_connects" {
  alarm_name          = "${local.name}-refused-connects"
  alarm_description   = "Many clients are refused. Read the reasons in connect-handler's log: faulty tokens after a change of keys or issuer, tenants that are not allowed, or rows that could not be written."
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.refused_connect_percent
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = var.tags

  metric_query {
    id = "opened"

    metric {
      namespace   = "Streamer"
      metric_name = "ConnectionsOpened"
      dimensions  = { service = "connect-handler", stage = var.stage }
      stat        = "Sum"
      period      = 300
    }
  }

  metric_query {
    id = "refused"

    metric {
      namespace   = "Streamer"
      metric_name = "ConnectionsRefused"
      dimensions  = { service = "connect-handler", stage = var.stage }
      stat        = "Sum"
      period      = 300
    }
  }

  # What was zero was not written. Of few, a share says nothing.
  metric_query {
    id          = "share"
    label       = "Refused connects, per cent"
    expression  = "IF(FILL(refused, 0) >= ${var.alarms.refused_connect_minimum}, 100 * FILL(refused, 0) / (FILL(refused, 0) + FILL(opened, 0)), 0)"
    return_data = true
  }
}

locals {
  errors = {
    connect    = "Nobody gets in while $connect fails, times out or does not start. Read the function's log: a faulty environment is named there."
    disconnect = "Rows stay behind where $disconnect fails; a post that finds no socket removes them. Read the function's log."
    delivery   = "Invocations of the worker end by a crash, a timeout or a start that fails; their messages come again after the visibility timeout. Read the worker's log: a faulty environment is named there."
  }
  throttles = {
    connect    = "Lambda refuses invocations, and so clients are refused. Look at the account's concurrency: what is not reserved is shared by all functions."
    disconnect = "Lambda refuses invocations, and rows stay behind until a post finds no socket. Look at the account's concurrency."
    delivery   = "Lambda refuses invocations of the worker, and each counts as a receive of its messages: after enough of them they are dead letters. Look at what else invokes the worker, and at the account's concurrency; reserve what the mapping makes."
  }
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each = local.functions

  alarm_name          = "${each.value.name}-errors"
  alarm_description   = local.errors[each.key]
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = aws_lambda_function.this[each.key].function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.errors
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "throttles" {
  for_each = local.functions

  alarm_name          = "${each.value.name}-throttles"
  alarm_description   = local.throttles[each.key]
  namespace           = "AWS/Lambda"
  metric_name         = "Throttles"
  dimensions          = { FunctionName = aws_lambda_function.this[each.key].function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.throttles
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "delivery_latency" {
  alarm_name          = "${local.name}-delivery-latency"
  alarm_description   = "Messages arrive late. On the dashboard, QueueAge near DeliveryLatency means that they wait for the worker, a high PostLatency that API Gateway is slow, and HandedBack that they are tried again."
  namespace           = "Streamer"
  metric_name         = "DeliveryLatency"
  dimensions          = { service = "delivery-worker", stage = var.stage }
  extended_statistic  = "p99"
  period              = 300
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.delivery_latency_p99_ms
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = var.tags
}
