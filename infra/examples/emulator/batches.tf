# Where MiniStack checks policies (AUTH=true), it asks for sqs:SendMessageBatch, an action that AWS does not have: there,
# sqs:SendMessage covers it. So what may send, may send batches here.

data "aws_iam_policy_document" "batches" {
  statement {
    sid       = "SendBatches"
    actions   = ["sqs:SendMessageBatch"]
    resources = [module.streamer.queue_arn, module.streamer.dead_letter_queue_arn]
  }
}

resource "aws_iam_role_policy" "batches" {
  for_each = {
    delivery = module.streamer.roles["delivery"]
    router   = aws_iam_role.router.name
  }

  name   = "batches"
  role   = each.value
  policy = data.aws_iam_policy_document.batches.json
}
