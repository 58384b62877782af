# The module beside an API, an issuer and functions that are created together with it: their ids are unknown when
# Terraform plans.

terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

variable "packages" {
  type = string
}

variable "architecture" {
  type = string
}

resource "terraform_data" "later" {
  for_each = toset(["api", "stage", "endpoint", "issuer", "audience", "function"])
}

module "streamer" {
  source = "../.."

  packages     = var.packages
  architecture = var.architecture

  api = {
    id                  = terraform_data.later["api"].id
    stage               = terraform_data.later["stage"].id
    management_endpoint = terraform_data.later["endpoint"].id
  }

  connect       = true
  jwt_issuers   = [terraform_data.later["issuer"].id]
  jwt_audiences = [terraform_data.later["audience"].id]
  authorizer    = { function = { arn = terraform_data.later["function"].id } }

  routes = {
    "$default" = {
      function_name = terraform_data.later["function"].id
      invoke_arn    = terraform_data.later["function"].id
    }
  }
}

output "functions" {
  value = module.streamer.functions
}
