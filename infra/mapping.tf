# How the outbound queue invokes the worker, and at what pace.
#
# The account's requests to API Gateway, 10 000 a second in a Region by default and 2 500 in newer ones, are shared by
# all its APIs there, clients' messages and posts to them alike:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
# Streamer takes requests_per_second of them: so many environments of the worker, each with so many posts a second.

locals {
  batch_size              = coalesce(var.batch_size, local.stack.mapping.batch_size)
  batching_window_seconds = coalesce(var.batching_window_seconds, local.stack.mapping.batching_window_seconds)

  requests_per_second = coalesce(var.requests_per_second, local.stack.mapping.pace.requests_per_second)

  # A mapping's maximum concurrency is 2 to 1000.
  # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
  maximum_concurrency = min(1000, max(2, ceil(local.requests_per_second / local.stack.mapping.pace.requests_per_second_of_an_environment)))

  # A poller of provisioned mode makes up to 10 invocations at the same time.
  invocations_of_a_poller = 10
  concurrency             = try(local.invocations_of_a_poller * var.provisioned_pollers.maximum, local.maximum_concurrency)
  reserved_concurrency    = coalesce(var.reserved_concurrency, local.concurrency)

  # 1 to 10 000 is what the worker takes.
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
    # SQS counts a receive whose invocation was throttled, and maxReceiveCount of them make a dead letter.
    precondition {
      condition     = local.reserved_concurrency == -1 || local.concurrency <= local.reserved_concurrency
      error_message = "The mapping makes up to ${local.concurrency} invocations at the same time, the worker takes ${local.reserved_concurrency}: raise reserved_concurrency, or lower requests_per_second or provisioned_pollers."
    }

    precondition {
      condition     = local.concurrency * local.max_posts_per_second <= local.requests_per_second
      error_message = "${local.concurrency} environments with a post a second each are more than requests_per_second (${local.requests_per_second}): raise it, or lower provisioned_pollers."
    }

    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    precondition {
      condition     = local.batch_size <= 10 || (!var.fifo && local.batching_window_seconds >= 1)
      error_message = "A batch of ${local.batch_size} needs a batching window of at least 1 s, and a standard queue: set batching_window_seconds, or lower batch_size to 10."
    }

    precondition {
      condition     = !var.fifo || local.batching_window_seconds == 0
      error_message = "A FIFO queue has no batching window: set batching_window_seconds to 0."
    }
  }

  # Until then a message that kills workers would come again and again.
  depends_on = [aws_sqs_queue_redrive_policy.outbound]
}
