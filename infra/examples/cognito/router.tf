# The function behind $default, which receives the clients' messages, and its role.

locals {
  router_zip = coalesce(var.router_zip, "${path.module}/../../../target/lambda/router.zip")
}

data "aws_partition" "current" {}

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
  name               = "${var.name}-router-${var.region}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy_attachment" "router_sends" {
  role       = aws_iam_role.router.name
  policy_arn = module.streamer.producer_policy_arn
}

resource "aws_iam_role_policy_attachment" "router_logs" {
  role       = aws_iam_role.router.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

resource "aws_lambda_function" "router" {
  #checkov:skip=CKV_AWS_50:Tracing of the router is up to you; the module's functions show how.
  #checkov:skip=CKV_AWS_115:A concurrency limit would refuse messages of clients.
  #checkov:skip=CKV_AWS_116:API Gateway invokes the router synchronously.
  #checkov:skip=CKV_AWS_117:The router calls nothing inside a VPC.
  #checkov:skip=CKV_AWS_173:The queue's URL is not a secret.
  #checkov:skip=CKV_AWS_272:Code signing needs a signing profile and a bucket of the account.
  function_name    = "${var.name}-router"
  role             = aws_iam_role.router.arn
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = [var.architecture]
  filename         = local.router_zip
  source_code_hash = filebase64sha256(local.router_zip)
  timeout          = 10
  memory_size      = 256

  environment {
    variables = {
      QUEUE_URL = module.streamer.queue_url
    }
  }

  # The stage needs the account's role for its access logs, and is created after its routes. A depends_on of the whole
  # module would defer its data sources on a change of the account, and so replace resources named after their values.
  depends_on = [aws_api_gateway_account.this]
}
