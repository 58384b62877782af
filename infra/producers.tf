# A policy for producers, which send to the outbound queue.

data "aws_iam_policy_document" "producer" {
  statement {
    sid       = "SendMessages"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.outbound.arn]
  }

  dynamic "statement" {
    for_each = local.encrypts ? [true] : []

    content {
      sid       = "EncryptMessages"
      actions   = ["kms:GenerateDataKey", "kms:Decrypt"]
      resources = [var.kms_key_arn]
    }
  }
}

resource "aws_iam_policy" "producer" {
  name        = "${local.global_name}-producer"
  description = "Send messages to the outbound queue"
  policy      = data.aws_iam_policy_document.producer.json
  tags        = var.tags
}
