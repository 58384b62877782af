# What does not fit together is refused before anything is made.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  jwt_issuer = "https://auth.example.com"
}

run "a_package_that_is_not_there" {
  command = plan

  variables {
    packages = "/nonexistent"
  }

  expect_failures = [aws_lambda_function.this]
}

run "a_visibility_timeout_below_six_timeouts" {
  command = plan

  variables {
    visibility_timeout_seconds = 179
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "a_visibility_timeout_without_room_for_the_batching_window" {
  command = plan

  variables {
    batching_window_seconds = 1
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "a_worker_timeout_above_a_sixth_of_the_visibility_timeout" {
  command = plan

  variables {
    worker_timeout_seconds = 31
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "a_message_that_is_tried_for_longer_than_it_is_kept" {
  command = plan

  variables {
    retention_seconds = 7800
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "dead_letters_that_are_kept_no_longer_than_messages" {
  command = plan

  variables {
    dead_letter_retention_seconds = 345600
  }

  expect_failures = [aws_sqs_queue.dead_letter]
}

run "a_big_batch_without_a_window" {
  command = plan

  variables {
    batch_size = 11
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "a_big_batch_from_a_fifo_queue" {
  command = plan

  variables {
    fifo       = true
    batch_size = 11
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "a_batching_window_on_a_fifo_queue" {
  command = plan

  variables {
    fifo                       = true
    batching_window_seconds    = 1
    visibility_timeout_seconds = 181
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "a_deployment_that_verifies_no_tokens" {
  command = plan

  variables {
    jwt_issuer = null
  }

  expect_failures = [var.jwt_public_key]
}

run "a_key_beside_a_set_of_keys" {
  command = plan

  variables {
    jwt_public_key = "-----BEGIN PUBLIC KEY-----"
    jwt_jwks_url   = "https://auth.example.com/jwks.json"
  }

  expect_failures = [var.jwt_public_key]
}

run "an_issuer_that_cannot_be_asked_for_its_keys" {
  command = plan

  variables {
    jwt_issuer = "auth"
  }

  expect_failures = [var.jwt_public_key]
}

run "a_key_that_is_no_pem" {
  command = plan

  variables {
    jwt_public_key = "secret"
  }

  expect_failures = [var.jwt_public_key]
}

run "a_set_of_keys_over_plain_http" {
  command = plan

  variables {
    jwt_jwks_url = "http://auth.example.com/jwks.json"
  }

  expect_failures = [var.jwt_jwks_url]
}

run "a_route_that_is_streamers" {
  command = plan

  variables {
    routes = { "$connect" = { function_name = "router", invoke_arn = "arn" } }
  }

  expect_failures = [var.routes]
}

run "a_management_endpoint_without_a_scheme" {
  command = plan

  variables {
    management_endpoint = "ws.example.com"
  }

  expect_failures = [var.management_endpoint]
}

run "an_aliass_arn_for_a_key" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:alias/k"
  }

  expect_failures = [var.kms_key_arn]
}

run "a_single_poller" {
  command = plan

  variables {
    provisioned_pollers = { minimum = 1, maximum = 2 }
  }

  expect_failures = [var.provisioned_pollers]
}

run "a_pace_below_two_requests" {
  command = plan

  variables {
    requests_per_second = 1
  }

  expect_failures = [var.requests_per_second]
}

run "a_worker_that_may_not_run" {
  command = plan

  variables {
    reserved_concurrency = 0
  }

  expect_failures = [var.reserved_concurrency]
}

run "no_tenants_at_all" {
  command = plan

  variables {
    allowed_tenants = []
  }

  expect_failures = [var.allowed_tenants]
}

run "a_tenant_with_a_comma" {
  command = plan

  variables {
    allowed_tenants = ["a,b"]
  }

  expect_failures = [var.allowed_tenants]
}

run "half_a_connection" {
  command = plan

  variables {
    max_connections_per_user = 0.5
  }

  expect_failures = [var.max_connections_per_user]
}

run "a_log_level_that_does_not_exist" {
  command = plan

  variables {
    log_level = "verbose"
  }

  expect_failures = [var.log_level]
}

run "a_throttle_that_refuses_everything" {
  command = plan

  variables {
    throttling = { rate = 0 }
  }

  expect_failures = [var.throttling]
}

run "half_a_second" {
  command = plan

  variables {
    connect_grace_seconds = 0.5
    max_age_seconds       = 1.5
  }

  expect_failures = [var.connect_grace_seconds, var.max_age_seconds]
}

run "graces_longer_than_the_age" {
  command = plan

  variables {
    away_grace_seconds = 60
    max_age_seconds    = 59
  }

  expect_failures = [aws_sqs_queue.outbound]
}

run "aliases_that_are_no_urls" {
  command = plan

  variables {
    management_endpoint_aliases = ["ws.example.com"]
  }

  expect_failures = [var.management_endpoint_aliases]
}

run "nothing_in_the_place_of_a_text" {
  command = plan

  variables {
    jwt_audience        = ""
    required_permission = ""
  }

  expect_failures = [var.jwt_audience, var.required_permission]
}

run "no_default_endpoint_and_none_to_post_to" {
  command = plan

  variables {
    disable_default_endpoint = true
  }

  expect_failures = [aws_apigatewayv2_api.this]
}
