# The example beside an API that exists plans at each step of the migration.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  functions_zip = "${var.packages}/connect-handler-${var.architecture}.zip" # any zip file
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["chat"]
}

run "step_0_has_no_streamer" {
  command = plan

  module {
    source = "./examples/existing-api"
  }

  variables {
    step = 0
  }

  assert {
    condition     = output.streamer == null && toset(keys(aws_lambda_function.chat["sendmessage"].environment[0].variables)) == toset(["ENDPOINT", "TABLE"])
    error_message = "environment: ${jsonencode(aws_lambda_function.chat["sendmessage"].environment[0].variables)}"
  }
}

run "step_1_adds_only_the_worker" {
  command = plan

  module {
    source = "./examples/existing-api"
  }

  variables {
    step = 1
  }

  assert {
    condition     = keys(output.streamer.functions) == ["delivery"] && output.streamer.connections_table == null
    error_message = "streamer: ${jsonencode(output.streamer)}"
  }
}

run "step_3_keeps_own_routes" {
  command = plan

  module {
    source = "./examples/existing-api"
  }

  variables {
    step = 3
  }

  assert {
    condition     = keys(output.streamer.functions) == ["connect", "delivery", "disconnect"] && output.streamer.connections_table == "streamer_connections"
    error_message = "streamer: ${jsonencode(output.streamer)}"
  }

  assert {
    condition     = aws_lambda_function.chat["connect"].environment[0].variables["STREAMER_CONNECT"] == "streamer-connect" && aws_lambda_function.chat["sendmessage"].environment[0].variables["STREAMER_TENANT"] == "chat"
    error_message = "environment: ${jsonencode(aws_lambda_function.chat["connect"].environment[0].variables)}"
  }
}
