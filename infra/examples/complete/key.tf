# The key of the queues, the table and the alarms' topic.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109:In a key's policy, * is the key.
  #checkov:skip=CKV_AWS_111:In a key's policy, * is the key.
  #checkov:skip=CKV_AWS_356:In a key's policy, * is the key.

  # Lets the account's IAM policies decide, as those of the module do; without it nobody could change the key.
  statement {
    sid       = "LeaveItToIam"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }

  # https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
  statement {
    sid       = "AlarmsPublishToTheTopic"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_kms_key" "streamer" {
  description         = "Streamer's queues, table and alarms"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.key.json
}

resource "aws_sns_topic" "alarms" {
  name              = "streamer-alarms"
  kms_master_key_id = aws_kms_key.streamer.arn
}
