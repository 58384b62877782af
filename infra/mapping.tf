# The event source mapping from the outbound queue to the worker, and its request rate.
#
# All APIs of an account in a Region share one limit of requests a second to API Gateway: 10 000 by default, 2 500 in
# newer Regions. Messages from clients and posts to clients both count:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
# Streamer uses up to requests_per_second of it: concurrent execution environments, times posts a second in each.

locals {
  batch_size              = coalesce(var.batch_size, local.stack.mapping.batch_size)
  batching_window_seconds = coalesce(var.batching_window_seconds, local.stack.mapping.batching_window_seconds)

  requests_per_second = coalesce(var.requests_per_second, local.stack.mapping.pace.requests_per_second)

  # Lambda accepts a maximum concurrency of 2 to 1000.
  # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
  maximum_concurrency = min(1000, max(2, ceil(local.requests_per_second / local.stack.mapping.pace.requests_per_second_of_an_environment)))

  # A provisioned poller makes up to 10 concurrent invocations.
  invocations_of_a_poller = 10
  concurrency             = try(local.invocations_of_a_poller * var.provisioned_pollers.maximum, local.maximum_concurrency)
  reserved_concurrency    = coalesce(var.reserved_concurrency, local.concurrency)

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
      error_message = "The mapping makes up to ${local.concurrency} concurrent invocations, but the worker's reserved concurrency is ${local.reserved_concurrency}: raise reserved_concurrency, or lower requests_per_second or provisioned_pollers."
    }

    precondition {
      condition     = local.concurrency * local.max_posts_per_second <= local.requests_per_second
      error_message = "${local.concurrency} execution environments with at least one post a second each exceed requests_per_second (${local.requests_per_second}): raise it, or lower provisioned_pollers."
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
