# The outbound queue, and the dead-letter queue behind it.

locals {
  queue_arn_prefix = "arn:${local.partition}:sqs:${local.region}:${local.account}"
  queues           = { outbound = aws_sqs_queue.outbound, dead_letter = aws_sqs_queue.dead_letter }
}

resource "aws_sqs_queue" "outbound" {
  name                       = local.outbound_name
  visibility_timeout_seconds = local.visibility_timeout_seconds
  message_retention_seconds  = local.retention_seconds
  max_message_size           = var.max_message_bytes
  tags                       = var.tags

  # High throughput: 300 calls a second are for each message group, not for the whole queue.
  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/high-throughput-fifo.html
  fifo_queue            = var.fifo
  deduplication_scope   = var.fifo ? "messageGroup" : null
  fifo_throughput_limit = var.fifo ? "perMessageGroupId" : null
  # Whoever sends sets a deduplication id: what is sent again on purpose has the same content.
  content_based_deduplication = var.fifo ? false : null

  sqs_managed_sse_enabled = var.kms_key_arn == null ? true : null
  kms_master_key_id       = var.kms_key_arn

  lifecycle {
    # A batch may be tried again while the function is throttled, before its messages come back.
    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    precondition {
      condition     = local.visibility_timeout_seconds >= 6 * local.functions[local.worker].timeout_seconds + local.batching_window_seconds
      error_message = "The visibility timeout (${local.visibility_timeout_seconds} s) has to be six times the worker's timeout (${local.functions[local.worker].timeout_seconds} s) plus the batching window (${local.batching_window_seconds} s), or more: raise visibility_timeout_seconds, or lower worker_timeout_seconds."
    }

    # SQS drops what is older than the retention, before the worker has given it up.
    precondition {
      condition     = var.max_age_seconds < local.retention_seconds
      error_message = "A message is tried for ${var.max_age_seconds} s, but kept for ${local.retention_seconds} s only: lower max_age_seconds, or raise retention_seconds."
    }

    # A message would be given up while it waits. The worker refuses it, too; its defaults are 30 and 5 s.
    precondition {
      condition     = var.max_age_seconds >= max(coalesce(var.away_grace_seconds, 30), coalesce(var.connect_grace_seconds, 5))
      error_message = "A message is tried for ${var.max_age_seconds} s, less than it may wait for its user: raise max_age_seconds, or lower away_grace_seconds and connect_grace_seconds."
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

  # By its name, since the outbound queue's redrive policy needs this queue first.
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = ["${local.queue_arn_prefix}:${local.outbound_name}"]
  })

  lifecycle {
    # What SQS moves from a standard queue keeps its age.
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
    precondition {
      condition     = local.dead_letter_retention_seconds > local.retention_seconds
      error_message = "Dead letters are kept for ${local.dead_letter_retention_seconds} s, and what SQS moves there keeps its age of up to ${local.retention_seconds} s: raise dead_letter_retention_seconds above retention_seconds."
    }
  }
}

# Of its own, so that the provider waits for both queues at the same time.
resource "aws_sqs_queue_redrive_policy" "outbound" {
  queue_url = aws_sqs_queue.outbound.url
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letter.arn
    maxReceiveCount     = local.max_receive_count
  })
}

locals {
  # What each queue's policy holds beside the rule that there is no call without TLS.
  queue_policies = {
    for queue, documents in { outbound = var.queue_policy_documents, dead_letter = [] } : queue => documents
    if var.require_tls || length(documents) > 0
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
