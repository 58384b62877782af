# The function behind $default, which receives the clients' messages.

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
  #checkov:skip=CKV_AWS_50:Emulators have no tracing.
  #checkov:skip=CKV_AWS_115:A concurrency limit would refuse messages of clients.
  #checkov:skip=CKV_AWS_116:API Gateway invokes the router synchronously.
  #checkov:skip=CKV_AWS_117:Emulators have no VPC.
  #checkov:skip=CKV_AWS_173:The queue's URL is not a secret.
  #checkov:skip=CKV_AWS_272:Emulators do not check signatures.
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
