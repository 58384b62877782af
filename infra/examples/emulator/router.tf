# The function behind $default, which gets what clients send.

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "router" {
  name               = "${var.name}-router-${local.region}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy_attachment" "router" {
  role       = aws_iam_role.router.name
  policy_arn = module.streamer.producer_policy_arn
}

resource "aws_lambda_function" "router" {
  #checkov:skip=CKV_AWS_50:Emulators do not trace.
  #checkov:skip=CKV_AWS_115:A limit would refuse what clients send.
  #checkov:skip=CKV_AWS_116:API Gateway invokes it synchronously.
  #checkov:skip=CKV_AWS_117:Emulators have no VPC.
  #checkov:skip=CKV_AWS_173:A queue's URL is no secret.
  #checkov:skip=CKV_AWS_272:Emulators check no signatures.
  function_name    = "${var.name}-router"
  role             = aws_iam_role.router.arn
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = [var.architecture]
  filename         = var.router_zip
  source_code_hash = filebase64sha256(var.router_zip)
  timeout          = 30
  memory_size      = 256

  environment {
    variables = {
      QUEUE_URL = module.streamer.queue_url
    }
  }
}
