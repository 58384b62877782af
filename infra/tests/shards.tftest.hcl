# The numbers of a tenant's shards: connect writes with tenant_shards, and the worker reads the larger of both numbers.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
}

run "worker_keeps_the_former_number" {
  command = plan

  variables {
    tenant_shards        = 16
    former_tenant_shards = 64
  }

  assert {
    condition     = [for variables in [aws_lambda_function.connect[0].environment[0].variables, aws_lambda_function.this["delivery"].environment[0].variables] : variables["TENANT_SHARDS"]] == ["16", "64"]
    error_message = "connect, delivery: ${jsonencode([for variables in [aws_lambda_function.connect[0].environment[0].variables, aws_lambda_function.this["delivery"].environment[0].variables] : variables["TENANT_SHARDS"]])}"
  }
}

run "worker_reads_a_number_that_has_grown" {
  command = plan

  variables {
    tenant_shards        = 256
    former_tenant_shards = 64
  }

  assert {
    condition     = [for variables in [aws_lambda_function.connect[0].environment[0].variables, aws_lambda_function.this["delivery"].environment[0].variables] : variables["TENANT_SHARDS"]] == ["256", "256"]
    error_message = "The former number is the smaller one."
  }
}

run "worker_reads_the_default_number_too" {
  command = plan

  variables {
    former_tenant_shards = 2
  }

  assert {
    condition     = !contains(keys(aws_lambda_function.connect[0].environment[0].variables), "TENANT_SHARDS") && aws_lambda_function.this["delivery"].environment[0].variables["TENANT_SHARDS"] == "8"
    error_message = "connect writes with 8 shards by default."
  }
}

run "numbers_are_bounded" {
  command = plan

  variables {
    tenant_shards        = 0
    former_tenant_shards = 257
  }

  expect_failures = [var.tenant_shards, var.former_tenant_shards]
}

run "numbers_are_whole" {
  command = plan

  variables {
    tenant_shards        = 1.5
    former_tenant_shards = 2.5
  }

  expect_failures = [var.tenant_shards, var.former_tenant_shards]
}
