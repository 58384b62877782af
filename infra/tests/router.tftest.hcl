# The example with a router of one's own plans with the module.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  jwt_issuers = ["https://auth.example.com"]
  router_zip  = "tests/router.tftest.hcl" # any file
}

run "router_example_plans" {
  command = plan

  module {
    source = "./examples/router"
  }

  assert {
    condition     = aws_lambda_function.router.environment[0].variables["QUEUE_URL"] == output.queue_url
    error_message = "The router does not send to the output queue_url."
  }

  assert {
    condition     = aws_iam_role_policy_attachment.router_sends.policy_arn == output.producer_policy_arn
    error_message = "The router's role has no permission to send."
  }
}
