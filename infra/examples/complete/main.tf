# Streamer on AWS, with a router, a producer, a mailbox, a KMS key and an SNS topic for alarms.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 6.28"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { application = "streamer" }
  }
}

module "streamer" {
  source = "../.."

  packages     = var.packages
  architecture = var.architecture

  routes = {
    "$default" = {
      function_name = aws_lambda_function.router.function_name
      invoke_arn    = aws_lambda_function.router.invoke_arn
    }
  }

  # The issuers' OpenID Connect configurations provide the keys.
  jwt_issuers              = var.jwt_issuers
  jwt_audiences            = var.jwt_audiences
  max_connections_per_user = 5

  # Messages with `keep` wait for users who are away.
  mailbox = true

  # Half of an account's limit in a newer Region: 3 execution environments with 416 posts a second each. They are
  # reserved for the worker, and 100 for the mailbox, since the account has the usual quota of concurrent executions.
  requests_per_second = 1250
  account_concurrency = 1000

  kms_key_arn     = aws_kms_key.streamer.arn
  alarm_topic_arn = aws_sns_topic.alarms.arn
}
