# Receipts on an EventBridge event bus. In a copy, change `source` to the path of Streamer's `infra/`. The account needs
# API Gateway's role for access logs, as in ../complete/account.tf.

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

  name         = var.name
  packages     = var.packages
  architecture = var.architecture

  jwt_issuers   = var.jwt_issuers
  jwt_audiences = var.jwt_audiences

  # With the mailbox, receipts also tell which kept messages clients have handled.
  mailbox  = true
  receipts = true
}
