# Streamer on AWS with a router of your own: a whole root module to copy. In the copy, change `source` to the path of
# Streamer's `infra/`, and set `router_zip`.

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
}

# The module creates the API with its routes, and lets it invoke their functions.
module "streamer" {
  source = "../.."

  name         = var.name
  packages     = var.packages
  architecture = var.architecture

  routes = {
    "$default" = {
      function_name = aws_lambda_function.router.function_name
      invoke_arn    = aws_lambda_function.router.invoke_arn
    }
  }

  jwt_public_key = var.jwt_public_key
  jwt_issuers    = var.jwt_issuers
  jwt_audiences  = var.jwt_audiences

  # The default settings fit a new account. If yours has a larger quota, set account_concurrency to it.
}
