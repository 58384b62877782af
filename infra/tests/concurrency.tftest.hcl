# Concurrency of the worker and its posts a second, computed from requests_per_second.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
}

run "default_fits_the_smallest_account" {
  command = plan

  assert {
    condition     = [local.maximum_concurrency, local.max_posts_per_second, local.reserved_concurrency] == [2, 500, -1]
    error_message = "concurrency and rate: ${jsonencode([local.maximum_concurrency, local.max_posts_per_second, local.reserved_concurrency])}"
  }

  assert {
    condition     = aws_lambda_event_source_mapping.outbound.scaling_config[0].maximum_concurrency == 2 && aws_lambda_function.this["delivery"].reserved_concurrent_executions == -1
    error_message = "The mapping must have the smallest maximum concurrency, and the worker must reserve nothing."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.outbound.function_response_types == toset(["ReportBatchItemFailures"]) && aws_lambda_event_source_mapping.outbound.batch_size == 10
    error_message = "The mapping must report batch item failures and have the batch size in stack.json."
  }
}

run "larger_account_reserves_concurrency" {
  command = plan

  variables {
    account_concurrency = 110
    requests_per_second = 5000
  }

  assert {
    condition     = aws_lambda_event_source_mapping.outbound.scaling_config[0].maximum_concurrency == 10 && aws_lambda_function.this["delivery"].reserved_concurrent_executions == 10 && aws_lambda_function.connect[0].reserved_concurrent_executions == -1
    error_message = "The mapping and the worker must have the computed concurrency."
  }
}

run "account_keeps_a_hundred_unreserved" {
  command = plan

  variables {
    account_concurrency = 109
    requests_per_second = 5000
  }

  assert {
    condition     = aws_lambda_function.this["delivery"].reserved_concurrent_executions == -1
    error_message = "Lambda would refuse to reserve 10 of 109."
  }
}

run "minimum_is_two_environments" {
  command = plan

  variables {
    requests_per_second = 2
  }

  assert {
    condition     = [local.maximum_concurrency, local.max_posts_per_second] == [2, 1]
    error_message = "concurrency and rate: ${jsonencode([local.maximum_concurrency, local.max_posts_per_second])}"
  }
}

run "posts_per_second_are_rounded_down" {
  command = plan

  variables {
    requests_per_second = 1250
  }

  assert {
    condition     = [local.maximum_concurrency, local.max_posts_per_second] == [3, 416]
    error_message = "concurrency and rate: ${jsonencode([local.maximum_concurrency, local.max_posts_per_second])}"
  }
}

run "concurrency_stops_at_lambda_maximum" {
  command = plan

  variables {
    requests_per_second = 1000000
    account_concurrency = 2000
  }

  assert {
    condition     = [local.maximum_concurrency, local.max_posts_per_second] == [1000, 1000]
    error_message = "concurrency and rate: ${jsonencode([local.maximum_concurrency, local.max_posts_per_second])}"
  }
}

run "provisioned_pollers_replace_maximum_concurrency" {
  command = plan

  variables {
    provisioned_pollers = { minimum = 2, maximum = 5 }
    account_concurrency = 1000
  }

  assert {
    condition     = length(aws_lambda_event_source_mapping.outbound.scaling_config) == 0 && aws_lambda_event_source_mapping.outbound.provisioned_poller_config[0].maximum_pollers == 5
    error_message = "A mapping must have either provisioned pollers or a maximum concurrency."
  }

  assert {
    condition     = [local.reserved_concurrency, local.max_posts_per_second] == [50, 20]
    error_message = "concurrency and rate: ${jsonencode([local.reserved_concurrency, local.max_posts_per_second])}"
  }
}

run "minus_one_reserves_no_concurrency" {
  command = plan

  variables {
    reserved_concurrency = -1
    account_concurrency  = 1000
  }

  assert {
    condition     = aws_lambda_function.this["delivery"].reserved_concurrent_executions == -1 && aws_lambda_event_source_mapping.outbound.scaling_config[0].maximum_concurrency == 2
    error_message = "No concurrency may be reserved, and the mapping must still limit it."
  }
}

run "rejects_reserved_concurrency_below_mapping" {
  command = plan

  variables {
    reserved_concurrency = 9
    requests_per_second  = 5000
    account_concurrency  = 1000
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_reserved_concurrency_below_pollers" {
  command = plan

  variables {
    provisioned_pollers  = { minimum = 2, maximum = 3 }
    reserved_concurrency = 29
    account_concurrency  = 1000
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_pollers_above_request_rate" {
  command = plan

  variables {
    provisioned_pollers = { minimum = 2, maximum = 20 }
    requests_per_second = 199
    account_concurrency = 1000
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_reservation_in_small_account" {
  command = plan

  variables {
    reserved_concurrency = 2
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_unreserved_worker_above_half_of_account" {
  command = plan

  variables {
    requests_per_second = 2501
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "half_of_account_is_left_to_others" {
  command = plan

  variables {
    requests_per_second = 2500
  }

  assert {
    condition     = 2 * local.concurrency == var.account_concurrency
    error_message = "concurrency: ${local.concurrency}"
  }
}

run "rejects_unreserved_pollers_in_small_account" {
  command = plan

  variables {
    provisioned_pollers = { minimum = 2, maximum = 2 }
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_minus_one_above_half_of_account" {
  command = plan

  variables {
    reserved_concurrency = -1
    provisioned_pollers  = { minimum = 2, maximum = 51 }
    account_concurrency  = 1000
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_account_without_room_for_others" {
  command = plan

  variables {
    account_concurrency = 3
  }

  expect_failures = [var.account_concurrency]
}
