# The topic in front of the cells' queues. Raw delivery puts the message itself on each queue.

locals {
  queue_arns = {
    first  = module.first.queue_arn
    second = module.second.queue_arn
  }
}

# The default size of a message, 256 KiB, is that of the queues.
resource "aws_sns_topic" "messages" {
  name              = "${var.name}-messages"
  kms_master_key_id = "alias/aws/sns"
}

data "aws_iam_policy_document" "topic_sends" {
  statement {
    sid       = "LetTheTopicSend"
    actions   = ["sqs:SendMessage"]
    resources = ["*"] # the policy belongs to one queue

    principals {
      type        = "Service"
      identifiers = ["sns.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_sns_topic.messages.arn]
    }
  }
}

# There is no filter policy: SNS would drop what it does not match, without a dead letter.
resource "aws_sns_topic_subscription" "cell" {
  for_each = local.queue_arns

  topic_arn            = aws_sns_topic.messages.arn
  protocol             = "sqs"
  endpoint             = each.value
  raw_message_delivery = true
  redrive_policy       = jsonencode({ deadLetterTargetArn = aws_sqs_queue.undelivered[each.key].arn })

  # Without the policy, SNS could not put its first undelivered message there.
  depends_on = [aws_sqs_queue_policy.undelivered]
}

# Messages that SNS could not put on a cell's queue, one queue for each cell, so that a redrive has one destination.
# https://docs.aws.amazon.com/sns/latest/dg/sns-dead-letter-queues.html
resource "aws_sqs_queue" "undelivered" {
  for_each = local.queue_arns

  name                      = "${var.name}-undelivered-${each.key}"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue_policy" "undelivered" {
  for_each = aws_sqs_queue.undelivered

  queue_url = each.value.url
  policy    = data.aws_iam_policy_document.topic_sends.json
}

resource "aws_cloudwatch_metric_alarm" "undelivered" {
  for_each = aws_sqs_queue.undelivered

  alarm_name          = each.value.name
  alarm_description   = "SNS could not put messages on the queue of the cell ${each.key}. Check that queue's policy, and then redrive this queue to it."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = each.value.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns.first[*]
}

# A message that SNS could not put on the queue above either is lost.
resource "aws_cloudwatch_metric_alarm" "lost" {
  alarm_name          = "${aws_sns_topic.messages.name}-lost"
  alarm_description   = "SNS lost messages for a cell: it could put them neither on the cell's queue nor on the queue of undelivered messages. Check the policies of both."
  namespace           = "AWS/SNS"
  metric_name         = "NumberOfNotificationsFailedToRedriveToDlq"
  dimensions          = { TopicName = aws_sns_topic.messages.name }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns.first[*]
}

# For producers: attach it to their roles. AWS's own key of the topic needs no permission in the same account.
data "aws_iam_policy_document" "publisher" {
  statement {
    sid       = "PublishMessages"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.messages.arn]
  }
}

resource "aws_iam_policy" "publisher" {
  name   = "${var.name}-publisher"
  policy = data.aws_iam_policy_document.publisher.json
}
