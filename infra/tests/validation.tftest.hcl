# Invalid settings fail at plan time, before Terraform creates resources.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
}

run "rejects_missing_package" {
  command = plan

  variables {
    packages = "/nonexistent"
  }

  expect_failures = [aws_lambda_function.this]
}

run "rejects_visibility_timeout_below_six_timeouts" {
  command = plan

  variables {
    visibility_timeout_seconds = 179
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "rejects_visibility_timeout_without_batching_window" {
  command = plan

  variables {
    batching_window_seconds = 1
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "rejects_worker_timeout_above_sixth_of_visibility" {
  command = plan

  variables {
    worker_timeout_seconds = 31
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "rejects_max_age_not_below_retention" {
  command = plan

  variables {
    retention_seconds = 7800
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "rejects_dead_letter_retention_not_above_retention" {
  command = plan

  variables {
    dead_letter_retention_seconds = 345600
  }

  expect_failures = [aws_sqs_queue.dead_letter]
}

run "rejects_small_limit_of_payloads" {
  command = plan

  variables {
    max_payload_bytes = 8191
  }

  expect_failures = [var.max_payload_bytes]
}

run "rejects_limit_of_payloads_above_api_gateways" {
  command = plan

  variables {
    max_payload_bytes = 131073
  }

  expect_failures = [var.max_payload_bytes]
}

run "rejects_large_batch_without_window" {
  command = plan

  variables {
    batch_size = 11
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_large_batch_on_fifo" {
  command = plan

  variables {
    fifo       = true
    batch_size = 11
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_batching_window_on_fifo" {
  command = plan

  variables {
    fifo                       = true
    batching_window_seconds    = 1
    visibility_timeout_seconds = 181
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_reserved_route" {
  command = plan

  variables {
    routes = { "$connect" = { function_name = "router", invoke_arn = "arn" } }
  }

  expect_failures = [var.routes]
}

run "rejects_management_endpoint_without_scheme" {
  command = plan

  variables {
    management_endpoint = "ws.example.com"
  }

  expect_failures = [var.management_endpoint]
}

run "rejects_kms_alias_arn" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:alias/k"
  }

  expect_failures = [var.kms_key_arn]
}

run "rejects_single_poller" {
  command = plan

  variables {
    provisioned_pollers = { minimum = 1, maximum = 2 }
  }

  expect_failures = [var.provisioned_pollers]
}

run "rejects_one_request_per_second" {
  command = plan

  variables {
    requests_per_second = 1
  }

  expect_failures = [var.requests_per_second]
}

run "rejects_zero_reserved_concurrency" {
  command = plan

  variables {
    reserved_concurrency = 0
  }

  expect_failures = [var.reserved_concurrency]
}

run "rejects_fractional_connection_limit" {
  command = plan

  variables {
    max_connections_per_user = 0.5
  }

  expect_failures = [var.max_connections_per_user]
}

run "rejects_unknown_log_level" {
  command = plan

  variables {
    log_level = "verbose"
  }

  expect_failures = [var.log_level]
}

run "rejects_alarm_above_100_percent" {
  command = plan

  variables {
    alarms = { undelivered_percent = 101 }
  }

  expect_failures = [var.alarms]
}

run "rejects_alarm_without_minimum" {
  command = plan

  variables {
    alarms = { refused_connect_majority_minimum = 0 }
  }

  expect_failures = [var.alarms]
}

run "rejects_zero_throttling_rate" {
  command = plan

  variables {
    throttling = { rate = 0 }
  }

  expect_failures = [var.throttling]
}

run "rejects_fractional_seconds" {
  command = plan

  variables {
    connect_grace_seconds = 0.5
    max_age_seconds       = 1.5
  }

  expect_failures = [var.connect_grace_seconds, var.max_age_seconds]
}

run "rejects_away_grace_above_max_age" {
  command = plan

  variables {
    away_grace_seconds = 60
    max_age_seconds    = 59
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "rejects_alias_without_scheme" {
  command = plan

  variables {
    management_endpoint_aliases = ["ws.example.com"]
  }

  expect_failures = [var.management_endpoint_aliases]
}

run "rejects_empty_required_permission" {
  command = plan

  variables {
    required_permission = ""
  }

  expect_failures = [var.required_permission]
}

run "rejects_disabled_endpoint_without_management_endpoint" {
  command = plan

  variables {
    disable_default_endpoint = true
  }

  expect_failures = [aws_apigatewayv2_api.this]
}

run "rejects_constant_route_selection" {
  command = plan

  variables {
    route_selection_expression = "request.body.action"
  }

  expect_failures = [var.route_selection_expression]
}
