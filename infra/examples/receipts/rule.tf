# A rule on the bus, as an example: messages that failed, in a log group. Receipts hold ids of tenants and users, and no
# payloads.

resource "aws_cloudwatch_event_rule" "failed" {
  name           = "${var.name}-failed"
  description    = "Messages that became dead letters"
  event_bus_name = aws_cloudwatch_event_bus.receipts.name
  event_pattern = jsonencode({
    source      = [var.name]
    detail-type = ["streamer.receipt"]
    detail      = { outcome = ["exhausted", "rejected", "poison"] }
  })
}

resource "aws_cloudwatch_log_group" "failed" {
  #checkov:skip=CKV_AWS_158:CloudWatch Logs encrypts the group with a key of its own.
  #checkov:skip=CKV_AWS_338:Failed messages are old after a month.
  name              = "/aws/events/${var.name}-failed"
  retention_in_days = 30
}

resource "aws_cloudwatch_event_target" "failed" {
  rule           = aws_cloudwatch_event_rule.failed.name
  event_bus_name = aws_cloudwatch_event_bus.receipts.name
  arn            = aws_cloudwatch_log_group.failed.arn
}

# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html
data "aws_iam_policy_document" "failed" {
  statement {
    sid       = "LetTheRuleWriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.failed.arn}:*"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com", "delivery.logs.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.failed.arn]
    }
  }
}

resource "aws_cloudwatch_log_resource_policy" "failed" {
  policy_name     = "${var.name}-failed"
  policy_document = data.aws_iam_policy_document.failed.json
}
