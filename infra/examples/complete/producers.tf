# Who sends messages: the router, which gets what clients send, and a job in a container.

locals {
  services = {
    router   = "lambda.amazonaws.com"
    producer = "ecs-tasks.amazonaws.com"
  }
}

data "aws_iam_policy_document" "assume" {
  for_each = local.services

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = [each.value]
    }
  }
}

resource "aws_iam_role" "router" {
  name               = "streamer-router-${var.region}"
  assume_role_policy = data.aws_iam_policy_document.assume["router"].json
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
  #checkov:skip=CKV_AWS_50:The module's functions show tracing; the router's is yours to choose.
  #checkov:skip=CKV_AWS_115:A limit would refuse what clients send.
  #checkov:skip=CKV_AWS_116:API Gateway invokes it synchronously.
  #checkov:skip=CKV_AWS_117:It calls nothing inside a VPC.
  #checkov:skip=CKV_AWS_173:A queue's URL is no secret.
  #checkov:skip=CKV_AWS_272:Code signing needs a signing profile and a bucket, which are the account's to have.
  function_name    = "streamer-router"
  role             = aws_iam_role.router.arn
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = [var.architecture]
  filename         = var.router_zip
  source_code_hash = filebase64sha256(var.router_zip)
  timeout          = 10
  memory_size      = 256

  environment {
    variables = {
      QUEUE_URL = module.streamer.queue_url
    }
  }

  # The stage comes after its routes, and writes access logs with the account's role. A depends_on of the whole module
  # would defer its data sources whenever the account changes, and so replace what is named by them.
  depends_on = [aws_api_gateway_account.this]
}

resource "aws_iam_role" "producer" {
  name               = "streamer-producer-${var.region}"
  assume_role_policy = data.aws_iam_policy_document.assume["producer"].json
}

resource "aws_iam_role_policy_attachment" "producer_sends" {
  role       = aws_iam_role.producer.name
  policy_arn = module.streamer.producer_policy_arn
}
