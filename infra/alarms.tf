# CloudWatch alarms. Each description explains the alarm, then names the first thing to check.

locals {
  alarm_actions = var.alarm_topic_arn == null ? [] : [var.alarm_topic_arn]

  worker_dimensions  = { service = "delivery-worker", stage = local.stage }
  connect_dimensions = { service = "connect-handler", stage = local.stage }
  mailbox_dimensions = { service = "mailbox-handler", stage = local.stage }

  most_dead_letters  = "(FILL(most, 0) + FILL(received, 0))"
  syncs_without_page = "(FILL(syncs, 0) - FILL(pages, 0))"

  # Alarms on messages and connections, by the suffix of the alarm's name.
  pipeline_alarms = {
    oldest-message = {
      description        = "The delivery worker does not keep up, or does not run. Check its Errors and Throttles alarms, then Throttles (429 responses of API Gateway) on the dashboard. If all are zero, raise requests_per_second."
      namespace          = "AWS/SQS"
      metric_name        = "ApproximateAgeOfOldestMessage"
      dimensions         = { QueueName = aws_sqs_queue.outbound.name }
      statistic          = "Maximum"
      period             = 60
      evaluation_periods = 2
      threshold          = var.alarms.oldest_message_seconds
    }
    oldest-part = {
      description        = "Parts of a message for a large audience have been on the parts queue for a long time. Replies to single users are not behind them. Without other alarms, the audience is large for the share of the pace: raise parts_percent or requests_per_second."
      namespace          = "AWS/SQS"
      metric_name        = "ApproximateAgeOfOldestMessage"
      dimensions         = { QueueName = local.parts_name }
      statistic          = "Maximum"
      period             = 60
      evaluation_periods = 2
      threshold          = var.alarms.oldest_part_seconds
    }
    handed-back-age = {
      description         = "A message has been tried for minutes, and a fault still keeps it from being delivered. The property causes of HandedBackAge in the worker's log names the faults: 429 is API Gateway's limit or a client that reads nothing, 403 and 404 are a wrong policy or endpoint, 5xx and timeouts are a fault in API Gateway, Query is the connection table."
      namespace           = "Streamer"
      metric_name         = "HandedBackAge"
      dimensions          = local.worker_dimensions
      statistic           = "Maximum"
      period              = 60
      evaluation_periods  = 5
      datapoints_to_alarm = 1
      threshold           = 1000 * var.alarms.handed_back_seconds
    }
    undelivered = {
      description         = "A large share of messages fails: their eighth try failed, or they expired or became dead letters. Read the causes in the worker's log."
      evaluation_periods  = 5
      datapoints_to_alarm = 2
      threshold           = var.alarms.undelivered_percent
      queries = [
        { id = "undelivered", namespace = "Streamer", metric_name = "Undelivered", dimensions = local.worker_dimensions, stat = "Sum", period = 180 },
        { id = "delivered", namespace = "Streamer", metric_name = "Delivered", dimensions = local.worker_dimensions, stat = "Sum", period = 180 },
      ]
      label = "Undelivered (%)"
      # FILL: the functions do not write zeros. Below the minimum, a percentage means little. Two periods, because the
      # messages of a single client that stalls fail for the eighth time together.
      expression = "IF(FILL(undelivered, 0) >= ${var.alarms.undelivered_minimum}, 100 * FILL(undelivered, 0) / (FILL(undelivered, 0) + FILL(delivered, 0)), 0)"
    }
    dead-letters = {
      description         = "Messages that could not be delivered arrived on the dead-letter queue in the last 20 minutes. Read their attributes streamer.reason and streamer.detail. SQS itself moved a message without these attributes, because its invocations crashed or were throttled. Redrive the messages after fixing the cause. The end of the alarm sends no notification, because the messages may still be there."
      evaluation_periods  = 3
      datapoints_to_alarm = 1
      threshold           = 0
      queries = [
        { id = "least", namespace = "AWS/SQS", metric_name = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = aws_sqs_queue.dead_letter.name }, stat = "Minimum", period = 300 },
        { id = "most", namespace = "AWS/SQS", metric_name = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = aws_sqs_queue.dead_letter.name }, stat = "Maximum", period = 300 },
        { id = "received", namespace = "AWS/SQS", metric_name = "ApproximateNumberOfMessagesNotVisible", dimensions = { QueueName = aws_sqs_queue.dead_letter.name }, stat = "Maximum", period = 300 },
      ]
      label = "Arrived"
      # Growth of the queue, because NumberOfMessagesSent does not count messages that SQS itself moves:
      # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
      # The least of a period is compared with the most of the period before the last one, `U - 2 * DIFF(U) + DIFF(DIFF(U))`:
      # the two metrics are not sampled together, so that a letter that is listed may count in both or in neither, and
      # a datapoint may be missing. An empty queue has no datapoints after 6 h without a call.
      expression = "FILL(least, 0) - (${local.most_dead_letters} - 2 * DIFF(${local.most_dead_letters}) + DIFF(DIFF(${local.most_dead_letters})))"
    }
    circuit-opened = {
      description        = "Posts to at least half of the recent connections of an execution environment failed, so its circuit breaker stopped posting for a while; messages wait on the queue. Read the causes in the worker's log: 403 and 404 mean a wrong policy or endpoint, 5xx and timeouts mean a fault in API Gateway."
      namespace          = "Streamer"
      metric_name        = "CircuitOpened"
      dimensions         = local.worker_dimensions
      statistic          = "Sum"
      period             = 60
      evaluation_periods = 1
      threshold          = 0
    }
    elsewhere = {
      description        = "Messages wait because their users or tenants are connected only at another management endpoint. The field cause in the worker's log names it. After a change of management_endpoint, add the old URL to management_endpoint_aliases. If the URL belongs to another API, send to that API's queue."
      namespace          = "Streamer"
      metric_name        = "Elsewhere"
      dimensions         = local.worker_dimensions
      statistic          = "Sum"
      period             = 60
      evaluation_periods = 1
      threshold          = 0
    }
    delivery-latency = {
      description        = "Messages arrive late. Check the dashboard: if QueueAge is close to DeliveryLatency, messages wait for the worker; if PostLatency is high, API Gateway is slow; if HandedBack is high, posts fail and are retried."
      evaluation_periods = 3
      threshold          = var.alarms.delivery_latency_p99_ms
      queries = [
        { id = "slowest", namespace = "Streamer", metric_name = "DeliveryLatency", dimensions = local.worker_dimensions, stat = "p99", period = 300 },
        { id = "median", namespace = "Streamer", metric_name = "DeliveryLatency", dimensions = local.worker_dimensions, stat = "p50", period = 300 },
        { id = "delivered", namespace = "Streamer", metric_name = "Delivered", dimensions = local.worker_dimensions, stat = "Sum", period = 300 },
      ]
      label = "Delivery latency (ms)"
      # Of fewer than 50 messages, the p99 is that of a single one.
      expression = "IF(FILL(delivered, 0) >= 50, slowest, median)"
    }
    failed-connects = {
      description         = "Clients cannot connect, whatever their tokens. connect-handler answers with 500: the issuer's keys cannot be fetched, the row cannot be written, or $connect has no authorizer; read the reasons in its log. If its log has no line, API Gateway cannot call a function: check the functions' permissions."
      evaluation_periods  = 10
      datapoints_to_alarm = 2
      threshold           = 0
      queries = concat(
        [{ id = "failed", namespace = "Streamer", metric_name = "ConnectionsFailed", dimensions = local.connect_dimensions, stat = "Sum", period = 60 }],
        # Another API has integrations of its own.
        local.creates_api ? [{ id = "uncalled", namespace = "AWS/ApiGateway", metric_name = "ExecutionError", dimensions = { ApiId = local.api_id, Stage = local.api_stage }, stat = "Sum", period = 60 }] : [],
      )
      label      = "Failed"
      expression = local.creates_api ? "FILL(failed, 0) + FILL(uncalled, 0)" : "FILL(failed, 0)"
    }
    failed-syncs = {
      description         = "A large share of clients that sync receive no page, so kept messages wait in the mailbox. Read the errors in mailbox-handler's log: a table that denies or throttles calls, a wrong table of connections, or posts that fail. Nothing is lost: clients sync again, and messages are kept for the time that their producer set."
      evaluation_periods  = 5
      datapoints_to_alarm = 2
      threshold           = var.alarms.failed_sync_percent
      queries = [
        { id = "syncs", namespace = "Streamer", metric_name = "Syncs", dimensions = local.mailbox_dimensions, stat = "Sum", period = 180 },
        { id = "pages", namespace = "Streamer", metric_name = "PagesPosted", dimensions = local.mailbox_dimensions, stat = "Sum", period = 180 },
      ]
      label = "Syncs without a page (%)"
      # Two periods, and not a single sync: a client that closes meanwhile receives no page.
      expression = "IF(${local.syncs_without_page} >= ${var.alarms.failed_sync_minimum}, 100 * ${local.syncs_without_page} / FILL(syncs, 0), 0)"
    }
    receipts-unread = {
      description        = "A receipt has been on the receipts queue for a long time: its consumer does not run, does not keep up, or fails. Check your program that reads the queue. Messages are delivered meanwhile, and SQS deletes receipts after 14 days."
      namespace          = "AWS/SQS"
      metric_name        = "ApproximateAgeOfOldestMessage"
      dimensions         = { QueueName = local.receipts_name }
      statistic          = "Maximum"
      period             = 60
      evaluation_periods = 2
      threshold          = var.alarms.unread_receipt_seconds
    }
    receipts-handed-back = {
      description         = "The worker cannot send receipts, so it hands them back to the outbound queue and tries again until max_age_seconds have passed; then they are dead letters. Messages are delivered meanwhile. The worker's log names the cause: a receipts queue that does not exist, a policy or a key that denies the call, or a fault of SQS."
      namespace           = "Streamer"
      metric_name         = "ReceiptsHandedBack"
      dimensions          = local.worker_dimensions
      statistic           = "Sum"
      period              = 60
      evaluation_periods  = 5
      datapoints_to_alarm = 3
      threshold           = 0
    }
  }

  # Without a table, no message waits for connections at another endpoint. Without a mailbox, no client syncs. Without
  # their queues, there are no receipts, and no parts apart.
  absent_alarms = concat(
    local.creates_table ? [] : ["elsewhere"],
    local.creates_function.connect ? [] : ["failed-connects"],
    local.creates_function.mailbox ? [] : ["failed-syncs"],
    var.receipts ? [] : ["receipts-unread", "receipts-handed-back"],
    local.has_parts_queue ? [] : ["oldest-part"],
  )

  refused_connects = "(FILL(refused, 0) - FILL(failed, 0))"

  # Alarms that notify only as parts of delivery-failing.
  silent_alarms = ["handed-back-age", "undelivered", "oldest-message", "circuit-opened"]

  # Alarms whose end may be read as a repair, although dead letters remain.
  endless_alarms = ["dead-letters"]

  function_alarm_descriptions = {
    connect-errors       = "$connect fails, times out or does not start, so clients cannot connect. Read the function's log: it names invalid environment variables."
    connect-throttles    = "Lambda throttles $connect, so clients are refused. Check the account's concurrency: all functions share the unreserved part."
    disconnect-errors    = "$disconnect fails, so rows of closed connections remain until a post to them fails with 410. Read the function's log."
    disconnect-throttles = "Lambda throttles $disconnect, so rows of closed connections remain until a post to them fails with 410. Check the account's concurrency."
    delivery-errors      = "Invocations of the worker crash, time out or do not start; SQS delivers their messages again after the visibility timeout. Read the worker's log: it names invalid environment variables."
    delivery-throttles   = "Lambda throttles the worker. Each throttled invocation counts as a receive of its messages, and at maxReceiveCount they become dead letters. Check for other callers of the worker and the account's concurrency, and reserve as much concurrency as the event source mapping uses."
    mailbox-errors       = "mailbox-handler fails, times out or does not start, so clients that sync receive no page and try again. Read the function's log: it names invalid environment variables."
    mailbox-throttles    = "Lambda throttles mailbox-handler: more clients sync at once than it has concurrency. They try again, and nothing is lost. If it does not end within minutes, raise mailbox_concurrency, or check the account's concurrency."
  }

  function_metrics = { errors = "Errors", throttles = "Throttles" }

  function_alarms = merge([
    for short, function in local.deployed_functions : {
      for suffix, metric_name in local.function_metrics : "${short}-${suffix}" => {
        description        = local.function_alarm_descriptions["${short}-${suffix}"]
        namespace          = "AWS/Lambda"
        metric_name        = metric_name
        dimensions         = { FunctionName = function.function_name }
        statistic          = "Sum"
        period             = 300
        evaluation_periods = 1
        threshold          = var.alarms[suffix]
      }
    }
  ]...)
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = {
    for name, alarm in merge(local.pipeline_alarms, local.function_alarms) : name => alarm
    if !contains(local.absent_alarms, name)
  }

  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = try(each.value.namespace, null)
  metric_name         = try(each.value.metric_name, null)
  dimensions          = try(each.value.dimensions, null)
  statistic           = try(each.value.statistic, null)
  extended_statistic  = try(each.value.extended_statistic, null)
  period              = try(each.value.period, null)
  evaluation_periods  = each.value.evaluation_periods
  datapoints_to_alarm = try(each.value.datapoints_to_alarm, null)
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = contains(local.silent_alarms, each.key) ? [] : local.alarm_actions
  ok_actions          = contains(concat(local.silent_alarms, local.endless_alarms), each.key) ? [] : local.alarm_actions
  tags                = var.tags

  dynamic "metric_query" {
    for_each = try(each.value.queries, [])

    content {
      id = metric_query.value.id

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.metric_name
        dimensions  = metric_query.value.dimensions
        stat        = metric_query.value.stat
        period      = metric_query.value.period
      }
    }
  }

  dynamic "metric_query" {
    for_each = try([each.value.expression], [])

    content {
      id          = "result"
      label       = each.value.label
      expression  = metric_query.value
      return_data = true
    }
  }
}

# One notification for an outage that several alarms see.
resource "aws_cloudwatch_composite_alarm" "delivery_failing" {
  alarm_name        = "${local.name}-delivery-failing"
  alarm_description = "Messages are not delivered: handed-back-age, undelivered, oldest-message or circuit-opened is in alarm, and its description says what to check first."
  alarm_rule        = join(" OR ", [for name in local.silent_alarms : "ALARM(\"${aws_cloudwatch_metric_alarm.this[name].alarm_name}\")"])
  alarm_actions     = local.alarm_actions
  ok_actions        = local.alarm_actions
  tags              = var.tags
}

resource "aws_cloudwatch_metric_alarm" "refused_connects" {
  count = local.creates_function.connect ? 1 : 0

  alarm_name          = "${local.name}-refused-connects"
  alarm_description   = "connect-handler refuses many clients. Read the reasons in its log: invalid tokens after a change of keys or issuer, or tenants that are not allowed."
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.refused_connect_percent
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
  tags                = var.tags

  dynamic "metric_query" {
    for_each = {
      opened     = "ConnectionsOpened"
      refused    = "ConnectionsRefused"
      failed     = "ConnectionsFailed"
      mismatched = "ConnectionsMismatched"
    }

    content {
      id = metric_query.key

      metric {
        namespace   = "Streamer"
        metric_name = metric_query.value
        dimensions  = local.connect_dimensions
        stat        = "Sum"
        period      = 300
      }
    }
  }

  # FILL: the functions do not write zeros. The alarm failed-connects sees those that fail. A percentage of few clients
  # means little, unless most are refused for a reason that concerns all of them.
  metric_query {
    id          = "share"
    label       = "Refused connects (%)"
    expression  = "IF(${local.refused_connects} >= ${var.alarms.refused_connect_minimum} OR (FILL(mismatched, 0) >= ${var.alarms.refused_connect_majority_minimum} AND FILL(mismatched, 0) > FILL(opened, 0)), 100 * ${local.refused_connects} / (${local.refused_connects} + FILL(opened, 0)), 0)"
    return_data = true
  }
}
