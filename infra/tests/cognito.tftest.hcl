# The example for Amazon Cognito plans with the module, for both kinds of tokens.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  router_zip = "tests/cognito.tftest.hcl" # any file
}

run "access_tokens_have_one_tenant" {
  command = plan

  module {
    source = "./examples/cognito"
  }

  assert {
    condition     = aws_lambda_function.router.environment[0].variables["QUEUE_URL"] == output.queue_url && output.client_id == "a1b2c3d4e5f6g7h8i9j0k1l2m3"
    error_message = "client: ${output.client_id}"
  }
}

run "id_tokens_name_the_tenant" {
  command = plan

  module {
    source = "./examples/cognito"
  }

  variables {
    tenant = null
  }

  assert {
    condition     = contains(aws_cognito_user_pool_client.app.read_attributes, "custom:tenant_id") && !contains(aws_cognito_user_pool_client.app.write_attributes, "custom:tenant_id")
    error_message = "Users must be able to read their tenant, and not to write it."
  }
}

# Beside a pool of the same apply, whose id is unknown when Terraform plans.
run "pool_is_created_with_the_module" {
  command = plan

  module {
    source = "./examples/cognito"
  }

  providers = {
    aws = aws.later
  }
}

mock_provider "aws" {
  alias  = "later"
  source = "./tests/mocks"
}
