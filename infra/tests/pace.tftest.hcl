# How many environments of the worker run, and how many posts each makes in a second.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  jwt_issuer = "https://auth.example.com"
}

run "the_default_is_half_of_an_accounts_requests" {
  command = plan

  assert {
    condition     = [local.maximum_concurrency, local.max_posts_per_second, local.reserved_concurrency] == [10, 500, 10]
    error_message = "pace: ${jsonencode([local.maximum_concurrency, local.max_posts_per_second, local.reserved_concurrency])}"
  }

  assert {
    condition     = aws_lambda_event_source_mapping.outbound.scaling_config[0].maximum_concurrency == 10 && aws_lambda_function.this["delivery"].reserved_concurrent_executions == 10 && aws_lambda_function.this["connect"].reserved_concurrent_executions == -1
    error_message = "The pace is not that of the mapping and the worker."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.outbound.function_response_types == toset(["ReportBatchItemFailures"]) && aws_lambda_event_source_mapping.outbound.batch_size == 10
    error_message = "The mapping takes no partial failures, or other batches than stack.json's."
  }
}

run "the_smallest_pace_is_a_post_a_second_in_two_environments" {
  command = plan

  variables {
    requests_per_second = 2
  }

  assert {
    condition     = [local.maximum_concurrency, local.max_posts_per_second] == [2, 1]
    error_message = "pace: ${jsonencode([local.maximum_concurrency, local.max_posts_per_second])}"
  }
}

run "a_pace_that_does_not_divide_is_not_exceeded" {
  command = plan

  variables {
    requests_per_second = 1250
  }

  assert {
    condition     = [local.maximum_concurrency, local.max_posts_per_second] == [3, 416]
    error_message = "pace: ${jsonencode([local.maximum_concurrency, local.max_posts_per_second])}"
  }
}

run "concurrency_ends_at_lambdas_maximum" {
  command = plan

  variables {
    requests_per_second = 1000000
  }

  assert {
    condition     = [local.maximum_concurrency, local.max_posts_per_second] == [1000, 1000]
    error_message = "pace: ${jsonencode([local.maximum_concurrency, local.max_posts_per_second])}"
  }
}

run "provisioned_pollers_take_the_place_of_a_maximum_concurrency" {
  command = plan

  variables {
    provisioned_pollers = { minimum = 2, maximum = 5 }
  }

  assert {
    condition     = length(aws_lambda_event_source_mapping.outbound.scaling_config) == 0 && aws_lambda_event_source_mapping.outbound.provisioned_poller_config[0].maximum_pollers == 5
    error_message = "A mapping has provisioned pollers or a maximum concurrency, not both."
  }

  assert {
    condition     = [local.reserved_concurrency, local.max_posts_per_second] == [50, 100]
    error_message = "pace: ${jsonencode([local.reserved_concurrency, local.max_posts_per_second])}"
  }
}

run "nothing_is_reserved_where_the_account_cannot" {
  command = plan

  variables {
    reserved_concurrency = -1
  }

  assert {
    condition     = aws_lambda_function.this["delivery"].reserved_concurrent_executions == -1 && aws_lambda_event_source_mapping.outbound.scaling_config[0].maximum_concurrency == 10
    error_message = "Concurrency is reserved, or not limited."
  }
}

run "the_mapping_makes_no_more_invocations_than_the_worker_takes" {
  command = plan

  variables {
    reserved_concurrency = 9
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "pollers_make_no_more_invocations_than_the_worker_takes" {
  command = plan

  variables {
    provisioned_pollers  = { minimum = 2, maximum = 3 }
    reserved_concurrency = 29
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "pollers_do_not_exceed_the_pace" {
  command = plan

  variables {
    provisioned_pollers = { minimum = 2, maximum = 20 }
    requests_per_second = 199
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}
