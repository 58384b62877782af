# From the receipts queue to an event bus. A pipe takes receipts from the queue, so it is the queue's only reader.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  pipe_name = "${var.name}-receipts"
  pipe_arn  = "arn:${data.aws_partition.current.partition}:pipes:${var.region}:${data.aws_caller_identity.current.account_id}:pipe/${local.pipe_name}"
}

resource "aws_cloudwatch_event_bus" "receipts" {
  #checkov:skip=CKV2_AWS_70:Without a policy, only the account's own principals have access.
  name = "${var.name}-receipts"
}

data "aws_iam_policy_document" "assume" {
  statement {
    sid     = "LetThePipeAssumeRole"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["pipes.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [local.pipe_arn]
    }
  }
}

data "aws_iam_policy_document" "pipe" {
  # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-permissions.html
  statement {
    sid       = "ReceiveReceipts"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    resources = [module.streamer.receipts_queue_arn]
  }

  statement {
    sid       = "PutEvents"
    actions   = ["events:PutEvents"]
    resources = [aws_cloudwatch_event_bus.receipts.arn]
  }
}

resource "aws_iam_role" "pipe" {
  name               = "${var.name}-receipts-${var.region}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "pipe" {
  name   = "receipts"
  role   = aws_iam_role.pipe.id
  policy = data.aws_iam_policy_document.pipe.json
}

resource "aws_pipes_pipe" "receipts" {
  name     = local.pipe_name
  role_arn = aws_iam_role.pipe.arn
  source   = module.streamer.receipts_queue_arn
  target   = aws_cloudwatch_event_bus.receipts.arn

  source_parameters {
    sqs_queue_parameters {
      batch_size = 10
    }
  }

  target_parameters {
    # A record's body is a CloudEvents event, which the pipe parses. Its data, the receipt, becomes the event's detail.
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-pipes-input-transformation.html
    input_template = "<$.body.data>"

    eventbridge_event_bus_parameters {
      detail_type = "streamer.receipt"
      source      = var.name
    }
  }

  # EventBridge checks the role's permissions when it creates the pipe.
  depends_on = [aws_iam_role_policy.pipe]
}
