# MiniStack with AUTH=true checks batch calls as sqs:SendMessageBatch, an action that AWS does not have: on AWS,
# sqs:SendMessage covers batches. So roles that may send get this action, too.

data "aws_iam_policy_document" "batches" {
  statement {
    sid     = "SendBatches"
    actions = ["sqs:SendMessageBatch"]
    resources = [
      module.streamer.queue_arn,
      module.streamer.parts_queue_arn,
      module.streamer.dead_letter_queue_arn,
      module.streamer.receipts_queue_arn,
    ]
  }
}

resource "aws_iam_role_policy" "batches" {
  for_each = {
    delivery = module.streamer.roles["delivery"]
    mailbox  = module.streamer.roles["mailbox"]
    router   = aws_iam_role.router.name
  }

  name   = "batches"
  role   = each.value
  policy = data.aws_iam_policy_document.batches.json
}
