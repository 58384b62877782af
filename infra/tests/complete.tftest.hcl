# The example for AWS plans with the module.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

run "complete_example_plans" {
  command = plan

  module {
    source = "./examples/complete"
  }

  variables {
    jwt_issuers = ["https://auth.example.com"]
    router_zip  = "${var.packages}/connect-handler-${var.architecture}.zip" # any zip file
  }

  assert {
    condition     = aws_lambda_function.router.environment[0].variables["QUEUE_URL"] == output.queue_url
    error_message = "The router does not send to the output queue_url."
  }

  assert {
    condition     = output.mailbox_table == "streamer_mailbox"
    error_message = "The example must have a mailbox."
  }
}
