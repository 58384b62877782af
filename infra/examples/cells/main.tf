# Two cells in two Regions, with an API, a worker, queues and tables each. In a copy, change `source` to the path of
# Streamer's `infra/`. The account needs API Gateway's role for access logs in both Regions, as in ../complete/account.tf.

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
  region = var.regions.first
}

provider "aws" {
  alias  = "second"
  region = var.regions.second
}

# Each cell has its own stage, which is the dimension of its metrics and the source of its receipts.
module "first" {
  source = "../.."

  name         = "${var.name}-first"
  stage        = "first"
  packages     = var.packages
  architecture = var.architecture

  jwt_issuers   = var.jwt_issuers
  jwt_audiences = var.jwt_audiences

  account_concurrency = var.account_concurrency
  requests_per_second = var.requests_per_second
  receipts            = true

  queue_policy_documents = [data.aws_iam_policy_document.topic_sends.json]
  alarm_topic_arn        = var.alarm_topic_arns.first
}

module "second" {
  source = "../.."

  providers = {
    aws = aws.second
  }

  name         = "${var.name}-second"
  stage        = "second"
  packages     = var.packages
  architecture = var.architecture

  jwt_issuers   = var.jwt_issuers
  jwt_audiences = var.jwt_audiences

  account_concurrency = var.account_concurrency
  requests_per_second = var.requests_per_second
  receipts            = true

  queue_policy_documents = [data.aws_iam_policy_document.topic_sends.json]
  alarm_topic_arn        = var.alarm_topic_arns.second
}
