# The event source mappings from the outbound queue and the parts queue to the worker, their request rate, and reserved
# concurrency.
#
# All APIs of an account in a Region share one limit of requests a second to API Gateway: 10 000 by default, 2 500 in
# newer Regions. Messages from clients and posts to clients both count:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
# Streamer uses up to requests_per_second of it: concurrent execution environments, times posts a second in each.
#
# All functions of an account in a Region share its quota of concurrent executions: 1 000 by default, 10 in new accounts.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
# The defaults fit the smallest quotas. Service Quotas could tell an account's own, as a data source, but a plan would then need
# its permissions, and emulators lack it.

locals {
  batch_size              = coalesce(var.batch_size, local.stack.mapping.batch_size)
  batching_window_seconds = coalesce(var.batching_window_seconds, local.stack.mapping.batching_window_seconds)

  requests_per_second = coalesce(var.requests_per_second, local.stack.mapping.pace.requests_per_second)

  # Each mapping has its share of requests_per_second, as a number of execution environments of the same pace.
  has_parts_queue  = var.parts_percent > 0
  outbound_percent = 100 - var.parts_percent

  # Lambda accepts a maximum concurrency of 2 to 1000.
  # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
  maximum_concurrency = min(1000, max(2, ceil(local.requests_per_second * local.outbound_percent / 100 / local.stack.mapping.pace.requests_per_second_of_an_environment)))

  # A provisioned poller makes up to 10 concurrent invocations. The parts queue has none.
  invocations_of_a_poller = 10
  outbound_concurrency    = try(local.invocations_of_a_poller * var.provisioned_pollers.maximum, local.maximum_concurrency)
  parts_concurrency       = local.has_parts_queue ? min(1000, max(2, ceil(local.outbound_concurrency * var.parts_percent / local.outbound_percent))) : 0
  concurrency             = local.outbound_concurrency + local.parts_concurrency

  # Lambda keeps 100 of the account's concurrency unreserved. In a smaller account, nothing can be reserved.
  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
  reservable_concurrency = max(0, var.account_concurrency - 100)
  reserved_concurrency   = coalesce(var.reserved_concurrency, local.concurrency <= local.reservable_concurrency ? local.concurrency : -1)

  # When an API restarts, every client connects and syncs. A reservation is also a limit, so that syncs, which clients
  # try again, leave the rest of the account to `$connect`, where a throttled client is refused.
  spare_concurrency   = local.reservable_concurrency - max(0, local.reserved_concurrency)
  mailbox_share       = floor(var.account_concurrency / 10)
  mailbox_concurrency = coalesce(var.mailbox_concurrency, local.mailbox_share >= 1 && local.mailbox_share <= local.spare_concurrency ? local.mailbox_share : -1)

  reservations = { (local.worker) = local.reserved_concurrency, mailbox = local.mailbox_concurrency }

  # The worker accepts 1 to 10 000.
  max_posts_per_second = min(10000, max(1, floor(local.requests_per_second / local.concurrency)))
}

resource "aws_lambda_event_source_mapping" "outbound" {
  event_source_arn                   = aws_sqs_queue.outbound.arn
  function_name                      = aws_lambda_function.this[local.worker].arn
  batch_size                         = local.batch_size
  maximum_batching_window_in_seconds = var.fifo ? null : local.batching_window_seconds
  function_response_types            = ["ReportBatchItemFailures"]
  tags                               = var.tags

  dynamic "scaling_config" {
    for_each = var.provisioned_pollers == null ? [local.maximum_concurrency] : []

    content {
      maximum_concurrency = scaling_config.value
    }
  }

  dynamic "provisioned_poller_config" {
    for_each = var.provisioned_pollers[*]

    content {
      minimum_pollers = provisioned_poller_config.value.minimum
      maximum_pollers = provisioned_poller_config.value.maximum
    }
  }

  lifecycle {
    # A throttled invocation counts as a receive of its messages, and SQS moves a message to the dead-letter queue after
    # maxReceiveCount receives.
    precondition {
      condition     = local.reserved_concurrency == -1 || local.concurrency <= local.reserved_concurrency
      error_message = "The mappings make up to ${local.concurrency} concurrent invocations, but the worker's reserved concurrency is ${local.reserved_concurrency}: raise reserved_concurrency, or lower requests_per_second, parts_percent or provisioned_pollers."
    }

    precondition {
      condition     = local.reserved_concurrency <= local.reservable_concurrency
      error_message = "Lambda keeps 100 of the account's concurrency unreserved, so ${local.reserved_concurrency} cannot be reserved with an account_concurrency of ${var.account_concurrency}: omit reserved_concurrency, or set account_concurrency to the account's quota if that is larger."
    }

    # Without a reservation, the worker takes its concurrency from the rest of the account. Half of the account stays
    # for $connect, $disconnect, the mailbox and the router: API Gateway answers their throttled invocations with an
    # error.
    precondition {
      condition     = local.reserved_concurrency != -1 || 2 * local.concurrency <= var.account_concurrency
      error_message = "The mappings make up to ${local.concurrency} concurrent invocations. Without reserved concurrency, that may be at most half of account_concurrency (${var.account_concurrency}), so that $connect, $disconnect and the router can run: set account_concurrency to the account's quota if that is larger, or lower requests_per_second, parts_percent or provisioned_pollers."
    }

    precondition {
      condition     = local.concurrency * local.max_posts_per_second <= local.requests_per_second
      error_message = "${local.concurrency} execution environments with at least one post a second each exceed requests_per_second (${local.requests_per_second}): raise it, or lower parts_percent or provisioned_pollers."
    }

    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    precondition {
      condition     = local.batch_size <= 10 || (!var.fifo && local.batching_window_seconds >= 1)
      error_message = "A batch_size of ${local.batch_size} needs a standard queue and a batching window of at least 1 s: set batching_window_seconds, or lower batch_size to 10."
    }

    precondition {
      condition     = !var.fifo || local.batching_window_seconds == 0
      error_message = "A FIFO queue has no batching window: set batching_window_seconds to 0."
    }
  }

  # Without the redrive policy, SQS would deliver a message that crashes the worker forever.
  depends_on = [aws_sqs_queue_redrive_policy.outbound]
}

# The preconditions of the outbound queue's mapping hold for both.
resource "aws_lambda_event_source_mapping" "parts" {
  count = local.has_parts_queue ? 1 : 0

  event_source_arn                   = aws_sqs_queue.parts[0].arn
  function_name                      = aws_lambda_function.this[local.worker].arn
  batch_size                         = local.batch_size
  maximum_batching_window_in_seconds = local.batching_window_seconds
  function_response_types            = ["ReportBatchItemFailures"]
  tags                               = var.tags

  scaling_config {
    maximum_concurrency = local.parts_concurrency
  }

  depends_on = [aws_sqs_queue_redrive_policy.parts]
}
