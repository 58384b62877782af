# Streamer beside an API that exists, in the three steps of docs/guide/migrate.md. Each step is an apply with another
# value of var.step, and so is the way back.

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

module "streamer" {
  source = "../.."
  count  = var.step >= 1 ? 1 : 0

  packages     = var.packages
  architecture = var.architecture

  api = {
    id                  = aws_apigatewayv2_api.chat.id
    stage               = aws_apigatewayv2_stage.production.name
    management_endpoint = local.management_endpoint
  }

  # Step 2: the chat's own functions keep their routes, and invoke these.
  connect          = var.step >= 2
  connect_route    = false
  disconnect       = var.step >= 2
  disconnect_route = false

  # The way back from step 2 removes the table.
  deletion_protection = false

  jwt_public_key = var.step >= 2 ? var.jwt_public_key : null
  jwt_issuers    = var.step >= 2 ? var.jwt_issuers : null
  jwt_audiences  = var.step >= 2 ? var.jwt_audiences : null
}

locals {
  # Environment variables of the chat's functions, by step.
  steps = merge(
    var.step >= 1 ? { STREAMER_QUEUE = module.streamer[0].queue_url } : {},
    var.step >= 2 ? {
      STREAMER_CONNECT    = module.streamer[0].functions["connect"]
      STREAMER_DISCONNECT = module.streamer[0].functions["disconnect"]
    } : {},
    var.step >= 3 ? { STREAMER_TENANT = var.tenant } : {},
  )
}

resource "aws_iam_role_policy_attachment" "sends" {
  count = var.step >= 1 ? 1 : 0

  role       = aws_iam_role.chat.name
  policy_arn = module.streamer[0].producer_policy_arn
}

data "aws_iam_policy_document" "invokes" {
  count = var.step >= 2 ? 1 : 0

  statement {
    actions   = ["lambda:InvokeFunction"]
    resources = [module.streamer[0].function_arns["connect"], module.streamer[0].function_arns["disconnect"]]
  }
}

resource "aws_iam_role_policy" "invokes" {
  count = var.step >= 2 ? 1 : 0

  name   = "streamer"
  role   = aws_iam_role.chat.id
  policy = data.aws_iam_policy_document.invokes[0].json
}
