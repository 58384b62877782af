# The KMS key for the queues, the tables and the alarms' topic.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109:In a key policy, * means this key.
  #checkov:skip=CKV_AWS_111:In a key policy, * means this key.
  #checkov:skip=CKV_AWS_356:In a key policy, * means this key.

  # Enables IAM policies of the account, such as the module's, to allow use of the key. Without this statement, the
  # key could not be managed any more.
  statement {
    sid       = "EnableIamPolicies"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }

  # https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
  statement {
    sid       = "LetAlarmsPublish"
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
  description         = "Streamer's queues, tables and alarms"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.key.json
}

resource "aws_sns_topic" "alarms" {
  name              = "streamer-alarms"
  kms_master_key_id = aws_kms_key.streamer.arn
}
