# Streamer on an AWS emulator: MiniStack, LocalStack and compatible ones.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 6.28"
    }
  }
}

locals {
  region = "us-east-1"
  stage  = "local"
}

provider "aws" {
  region     = local.region
  access_key = "test"
  secret_key = "test"

  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true

  endpoints {
    apigatewayv2 = var.endpoint_url
    cloudwatch   = var.endpoint_url
    dynamodb     = var.endpoint_url
    iam          = var.endpoint_url
    lambda       = var.endpoint_url
    logs         = var.endpoint_url
    sqs          = var.endpoint_url
    sts          = var.endpoint_url
  }
}

module "streamer" {
  source = "../.."

  name         = var.name
  stage        = local.stage
  packages     = var.packages
  architecture = var.architecture

  # Emulators serve all APIs on one origin.
  management_endpoint = "${coalesce(var.management_origin, var.endpoint_url)}/_aws/execute-api/{api}/{stage}"
  routes = {
    "$default" = {
      function_name = aws_lambda_function.router.function_name
      invoke_arn    = aws_lambda_function.router.invoke_arn
    }
  }

  jwt_public_key = var.jwt_public_key
  jwt_issuers    = var.jwt_issuers

  max_connections_per_user = var.max_connections_per_user

  # The smallest maximum, so that tests reach it soon.
  mailbox              = true
  mailbox_max_messages = 100
  receipts             = true

  # Short, so that messages of a crashed worker become visible again within seconds.
  worker_timeout_seconds     = var.worker_timeout_seconds
  visibility_timeout_seconds = var.visibility_timeout_seconds
  connect_grace_seconds      = var.connect_grace_seconds

  # Emulators have no quotas that others share.
  requests_per_second = 5000
  parts_percent       = 50
  account_concurrency = 1000

  # Emulators use plain HTTP, and their data is disposable.
  require_tls         = false
  deletion_protection = false
}
