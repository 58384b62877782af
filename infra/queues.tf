# The outbound queue, the parts queue, their dead-letter queue, and the receipts queue.

locals {
  queue_arn_prefix = "arn:${local.partition}:sqs:${local.region}:${local.account}"
  queues = merge(
    { outbound = aws_sqs_queue.outbound, dead_letter = aws_sqs_queue.dead_letter },
    { for queue in aws_sqs_queue.parts : "parts" => queue },
    { for queue in aws_sqs_queue.receipts : "receipts" => queue },
  )
}

resource "aws_sqs_queue" "outbound" {
  name                       = local.outbound_name
  visibility_timeout_seconds = local.visibility_timeout_seconds
  message_retention_seconds  = local.retention_seconds
  max_message_size           = var.max_message_bytes
  tags                       = var.tags

  # High throughput: the limit of 300 calls a second applies to each message group, not to the whole queue.
  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/high-throughput-fifo.html
  fifo_queue            = var.fifo
  deduplication_scope   = var.fifo ? "messageGroup" : null
  fifo_throughput_limit = var.fifo ? "perMessageGroupId" : null
  # Senders set a deduplication id, because an intended re-send has the same content.
  content_based_deduplication = var.fifo ? false : null

  sqs_managed_sse_enabled = var.kms_key_arn == null ? true : null
  kms_master_key_id       = var.kms_key_arn

  lifecycle {
    # Lambda retries a batch while the function is throttled, and the messages must stay hidden for that time.
    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    precondition {
      condition     = local.visibility_timeout_seconds >= 6 * local.functions[local.worker].timeout_seconds + local.batching_window_seconds
      error_message = "The visibility timeout (${local.visibility_timeout_seconds} s) must be at least six times the worker's timeout (${local.functions[local.worker].timeout_seconds} s) plus the batching window (${local.batching_window_seconds} s): raise visibility_timeout_seconds, or lower worker_timeout_seconds."
    }

    # SQS would delete a message at the end of its retention, before the worker gives it up.
    precondition {
      condition     = var.max_age_seconds < local.retention_seconds
      error_message = "max_age_seconds (${var.max_age_seconds} s) must be below the retention of the outbound queue (${local.retention_seconds} s): lower max_age_seconds, or raise retention_seconds."
    }

    # A message would expire while it waits for its user. The worker rejects such settings, too; its defaults are 30 s
    # (away grace) and 5 s (connect grace).
    precondition {
      condition     = var.max_age_seconds >= max(coalesce(var.away_grace_seconds, 30), coalesce(var.connect_grace_seconds, 5))
      error_message = "max_age_seconds (${var.max_age_seconds} s) must be at least away_grace_seconds and connect_grace_seconds: raise it, or lower them."
    }
  }
}

# The parts of large audiences, with the outbound queue's settings, so that a part may stay there for as long as a message.
resource "aws_sqs_queue" "parts" {
  count = local.has_parts_queue ? 1 : 0

  name                       = local.parts_name
  visibility_timeout_seconds = local.visibility_timeout_seconds
  message_retention_seconds  = local.retention_seconds
  max_message_size           = var.max_message_bytes
  tags                       = var.tags

  sqs_managed_sse_enabled = var.kms_key_arn == null ? true : null
  kms_master_key_id       = var.kms_key_arn

  lifecycle {
    precondition {
      condition     = !var.fifo
      error_message = "A FIFO worker makes no parts: it posts to all connections of a user, and rejects messages for tenants. Omit parts_percent."
    }
  }
}

resource "aws_sqs_queue" "dead_letter" {
  name                      = local.dead_letter_name
  message_retention_seconds = local.dead_letter_retention_seconds
  max_message_size          = var.max_message_bytes
  tags                      = var.tags

  fifo_queue                  = var.fifo
  deduplication_scope         = var.fifo ? "messageGroup" : null
  fifo_throughput_limit       = var.fifo ? "perMessageGroupId" : null
  content_based_deduplication = var.fifo ? false : null

  sqs_managed_sse_enabled = var.kms_key_arn == null ? true : null
  kms_master_key_id       = var.kms_key_arn

  # ARNs built from the names, because the redrive policies of these queues depend on this queue.
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [for name in concat([local.outbound_name], local.has_parts_queue ? [local.parts_name] : []) : "${local.queue_arn_prefix}:${name}"]
  })

  lifecycle {
    # A message that SQS moves from a standard queue keeps its age.
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
    precondition {
      condition     = local.dead_letter_retention_seconds > local.retention_seconds
      error_message = "The dead-letter queue keeps messages for ${local.dead_letter_retention_seconds} s, but a message that SQS moves there may already be ${local.retention_seconds} s old: raise dead_letter_retention_seconds above retention_seconds."
    }
  }
}

# Receipts need no order, so the queue is a standard one beside FIFO queues, too. A redrive policy is up to the consumer.
resource "aws_sqs_queue" "receipts" {
  count = var.receipts ? 1 : 0

  name                       = local.receipts_name
  visibility_timeout_seconds = local.stack.queues.receipts.visibility_timeout_seconds
  message_retention_seconds  = local.stack.queues.receipts.retention_seconds
  tags                       = var.tags

  sqs_managed_sse_enabled = var.kms_key_arn == null ? true : null
  kms_master_key_id       = var.kms_key_arn
}

# A separate resource, so that the provider waits for both queues at the same time.
resource "aws_sqs_queue_redrive_policy" "outbound" {
  queue_url = aws_sqs_queue.outbound.url
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letter.arn
    maxReceiveCount     = local.max_receive_count
  })
}

resource "aws_sqs_queue_redrive_policy" "parts" {
  count = local.has_parts_queue ? 1 : 0

  queue_url = aws_sqs_queue.parts[0].url
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letter.arn
    maxReceiveCount     = local.max_receive_count
  })
}

locals {
  # Policy documents of each queue, in addition to the statement that denies calls without TLS.
  queue_policies = {
    for queue, documents in { outbound = var.queue_policy_documents, parts = [], dead_letter = [], receipts = [] } : queue => documents
    if contains(keys(local.queues), queue) && (var.require_tls || length(documents) > 0)
  }
}

data "aws_iam_policy_document" "queue" {
  for_each = local.queue_policies

  source_policy_documents = each.value

  dynamic "statement" {
    for_each = var.require_tls ? [true] : []

    content {
      sid       = "DenyWithoutTls"
      effect    = "Deny"
      actions   = ["sqs:*"]
      resources = [local.queues[each.key].arn]

      principals {
        type        = "*"
        identifiers = ["*"]
      }

      condition {
        test     = "Bool"
        variable = "aws:SecureTransport"
        values   = ["false"]
      }
    }
  }
}

resource "aws_sqs_queue_policy" "this" {
  for_each = local.queue_policies

  queue_url = local.queues[each.key].url
  policy    = data.aws_iam_policy_document.queue[each.key].json
}
