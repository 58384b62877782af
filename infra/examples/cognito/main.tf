# Streamer on AWS with clients that sign in at Amazon Cognito, and with a router of your own: a whole root module to
# copy. In the copy, change `source` to the path of Streamer's `infra/`, and set `router_zip`.

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

  # The pool's OpenID Connect configuration provides the keys. Access tokens name the client in `client_id`, ID tokens in
  # `aud`. The user is the claim `sub` of both.
  jwt_issuers        = ["https://${aws_cognito_user_pool.users.endpoint}"]
  jwt_audiences      = [aws_cognito_user_pool_client.app.id]
  jwt_audience_claim = local.uses_id_tokens ? null : "client_id"

  # Of both tokens, only ID tokens have the attributes of a user.
  tenant_claim   = local.uses_id_tokens ? "custom:tenant_id" : null
  default_tenant = var.tenant

  # A user's groups in the pool are the permissions: required_permission could name one.
  permissions_claim = "cognito:groups"

  # The default settings fit a new account. If yours has a larger quota, set account_concurrency to it.
}

locals {
  uses_id_tokens = var.tenant == null
}
