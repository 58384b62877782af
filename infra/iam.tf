# A role for each function, which allows the calls that the function makes and no others.

locals {
  # $connect reads and closes a user's other connections only if their number is limited.
  limits_connections = var.max_connections_per_user != null
  encrypts           = var.kms_key_arn != null

  table_arn      = one(aws_dynamodb_table.connections[*].arn)
  mailbox_arn    = one(aws_dynamodb_table.mailbox[*].arn)
  parts_arns     = aws_sqs_queue.parts[*].arn
  receipts_arn   = one(aws_sqs_queue.receipts[*].arn)
  management_arn = "${local.execution_arn}/${local.api_stage}"

  policies = {
    connect    = one(data.aws_iam_policy_document.connect[*].json)
    disconnect = one(data.aws_iam_policy_document.disconnect[*].json)
    delivery   = data.aws_iam_policy_document.delivery.json
    mailbox    = one(data.aws_iam_policy_document.mailbox[*].json)
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    sid     = "LetLambdaAssumeRole"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "function" {
  for_each = local.functions

  name               = "${each.value.name}-${local.region}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
  tags               = var.tags
}

resource "aws_iam_role_policy" "function" {
  for_each = local.functions

  name   = "streamer"
  role   = aws_iam_role.function[each.key].id
  policy = local.policies[each.key]

  # If the guard refuses to give up the table, the worker keeps its permissions and its environment, too.
  depends_on = [terraform_data.deployed]
}

# Permissions of all functions: logs, traces and decryption.
data "aws_iam_policy_document" "telemetry" {
  for_each = local.functions

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function[each.key].arn}:*"]
  }

  dynamic "statement" {
    for_each = var.tracing ? [true] : []

    content {
      sid       = "SendTraces"
      actions   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
      resources = ["*"]
    }
  }

  # DynamoDB uses a customer managed key with the caller's permissions.
  dynamic "statement" {
    for_each = local.encrypts ? [true] : []

    content {
      sid       = "DecryptWithKey"
      actions   = ["kms:Decrypt"]
      resources = [var.kms_key_arn]
    }
  }
}

data "aws_iam_policy_document" "connect" {
  count = local.creates_function.connect ? 1 : 0

  source_policy_documents = [data.aws_iam_policy_document.telemetry["connect"].json]

  statement {
    sid       = "PutConnection"
    actions   = ["dynamodb:PutItem"]
    resources = [local.table_arn]
  }

  dynamic "statement" {
    for_each = local.limits_connections ? [true] : []

    content {
      sid       = "QueryUserConnections"
      actions   = ["dynamodb:Query"]
      resources = ["${local.table_arn}/index/by_user"]
    }
  }

  dynamic "statement" {
    for_each = local.limits_connections ? [true] : []

    content {
      sid       = "CloseOldestConnection"
      actions   = ["execute-api:ManageConnections"]
      resources = ["${local.management_arn}/DELETE/@connections/*"]
    }
  }

  dynamic "statement" {
    for_each = local.limits_connections ? [true] : []

    content {
      sid       = "DeleteClosedConnection"
      actions   = ["dynamodb:DeleteItem"]
      resources = [local.table_arn]
    }
  }
}

data "aws_iam_policy_document" "disconnect" {
  count = local.creates_function.disconnect ? 1 : 0

  source_policy_documents = [data.aws_iam_policy_document.telemetry["disconnect"].json]

  statement {
    sid       = "DeleteConnection"
    actions   = ["dynamodb:DeleteItem"]
    resources = [local.table_arn]
  }
}

data "aws_iam_policy_document" "delivery" {
  source_policy_documents = [data.aws_iam_policy_document.telemetry["delivery"].json]

  # The event source mappings poll with the function's role. Lambda checks their three actions at creation.
  # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
  statement {
    sid       = "ReceiveMessages"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    resources = concat([aws_sqs_queue.outbound.arn], local.parts_arns)
  }

  # Hand-backs to the outbound queue, and with the parts queue, parts and their hand-backs there. Dead letters to the
  # dead-letter queue.
  statement {
    sid       = "SendMessages"
    actions   = ["sqs:SendMessage"]
    resources = concat([aws_sqs_queue.outbound.arn, aws_sqs_queue.dead_letter.arn], local.parts_arns)
  }

  dynamic "statement" {
    for_each = var.receipts ? [true] : []

    content {
      sid       = "SendReceipts"
      actions   = ["sqs:SendMessage"]
      resources = [local.receipts_arn]
    }
  }

  # On a FIFO queue the worker hides unfinished messages instead of handing them back, to keep their order.
  dynamic "statement" {
    for_each = var.fifo ? [true] : []

    content {
      sid       = "ChangeMessageVisibility"
      actions   = ["sqs:ChangeMessageVisibility"]
      resources = [aws_sqs_queue.outbound.arn]
    }
  }

  dynamic "statement" {
    for_each = local.creates_table ? [true] : []

    content {
      sid       = "FindRecipients"
      actions   = ["dynamodb:Query"]
      resources = [for index in local.stack.table.indexes : "${local.table_arn}/index/${index.name}"]
    }
  }

  dynamic "statement" {
    for_each = local.creates_table ? [true] : []

    content {
      sid       = "DeleteGoneConnections"
      actions   = ["dynamodb:DeleteItem"]
      resources = [local.table_arn]
    }
  }

  # Appends messages, moves the head, finds devices, and removes devices that are gone and messages beyond the maximum.
  dynamic "statement" {
    for_each = var.mailbox ? [true] : []

    content {
      sid = "KeepMessages"
      actions = [
        "dynamodb:BatchWriteItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
      ]
      resources = [local.mailbox_arn]
    }
  }

  statement {
    sid       = "PostToConnections"
    actions   = ["execute-api:ManageConnections"]
    resources = ["${local.management_arn}/POST/@connections/*"]
  }

  # SQS encrypts messages with the sender's permissions, which must include Decrypt, too.
  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
  dynamic "statement" {
    for_each = local.encrypts ? [true] : []

    content {
      sid       = "EncryptMessages"
      actions   = ["kms:GenerateDataKey"]
      resources = [var.kms_key_arn]
    }
  }
}

data "aws_iam_policy_document" "mailbox" {
  count = var.mailbox ? 1 : 0

  source_policy_documents = [data.aws_iam_policy_document.telemetry["mailbox"].json]

  # The row names the connection's user: a frame of a client does not.
  statement {
    sid       = "ReadConnection"
    actions   = ["dynamodb:GetItem"]
    resources = [local.table_arn]
  }

  statement {
    sid       = "ReadMessages"
    actions   = ["dynamodb:GetItem", "dynamodb:Query"]
    resources = [local.mailbox_arn]
  }

  statement {
    sid       = "RegisterDevices"
    actions   = ["dynamodb:PutItem", "dynamodb:DeleteItem"]
    resources = [local.mailbox_arn]
  }

  # A stream's head expires 60 days after its last message. A sync renews it.
  statement {
    sid       = "RenewStreams"
    actions   = ["dynamodb:UpdateItem"]
    resources = [local.mailbox_arn]
  }

  statement {
    sid       = "PostPages"
    actions   = ["execute-api:ManageConnections"]
    resources = ["${local.management_arn}/POST/@connections/*"]
  }

  # Receipts of messages that clients have acknowledged.
  dynamic "statement" {
    for_each = var.receipts ? [true] : []

    content {
      sid       = "SendReceipts"
      actions   = ["sqs:SendMessage"]
      resources = [local.receipts_arn]
    }
  }

  dynamic "statement" {
    for_each = var.receipts && local.encrypts ? [true] : []

    content {
      sid       = "EncryptReceipts"
      actions   = ["kms:GenerateDataKey"]
      resources = [var.kms_key_arn]
    }
  }
}
