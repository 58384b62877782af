# The parts queue: off by default, all of its parts with parts_percent, and its share of the pace.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

override_resource {
  target          = aws_sqs_queue.outbound
  override_during = plan
  values          = { arn = "arn:aws:sqs:eu-central-1:123456789012:outbound" }
}

override_resource {
  target          = aws_sqs_queue.dead_letter
  override_during = plan
  values          = { arn = "arn:aws:sqs:eu-central-1:123456789012:dead-letters" }
}

override_resource {
  target          = aws_sqs_queue.parts
  override_during = plan
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:parts"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/parts"
  }
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
  parts_percent = 50
}

run "parts_queue_is_off_by_default" {
  command = plan

  variables {
    parts_percent = 0
  }

  assert {
    condition     = length(aws_sqs_queue.parts) == 0 && length(aws_lambda_event_source_mapping.parts) == 0 && output.parts_queue_url == null && local.concurrency == 2 && local.max_posts_per_second == 500
    error_message = "Without parts_percent, there must be one queue, and its mapping has the whole pace."
  }

  assert {
    condition     = !contains(keys(aws_lambda_function.this["delivery"].environment[0].variables), "PARTS_QUEUE_URL") && !strcontains(join(",", output.alarms), "oldest-part") && !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "streamer-parts") && !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "PartLatency")
    error_message = "Neither the worker, the alarms nor the dashboard must name the queue."
  }
}

run "halves_fit_the_smallest_account" {
  command = plan

  assert {
    condition     = [local.outbound_concurrency, local.parts_concurrency, local.max_posts_per_second, local.reserved_concurrency] == [2, 2, 250, -1]
    error_message = "concurrency and rate: ${jsonencode([local.outbound_concurrency, local.parts_concurrency, local.max_posts_per_second, local.reserved_concurrency])}"
  }

  assert {
    condition     = aws_lambda_event_source_mapping.outbound.scaling_config[0].maximum_concurrency == 2 && aws_lambda_event_source_mapping.parts[0].scaling_config[0].maximum_concurrency == 2 && aws_lambda_event_source_mapping.parts[0].function_response_types == toset(["ReportBatchItemFailures"]) && aws_lambda_event_source_mapping.parts[0].event_source_arn == aws_sqs_queue.parts[0].arn
    error_message = "Each mapping must have the smallest maximum concurrency."
  }

  assert {
    condition     = aws_lambda_function.this["delivery"].environment[0].variables["PARTS_QUEUE_URL"] == output.parts_queue_url && aws_sqs_queue.parts[0].visibility_timeout_seconds == 180 && aws_sqs_queue.parts[0].message_retention_seconds == 345600
    error_message = "The worker must know the queue, which has the outbound queue's settings."
  }

  assert {
    condition     = toset(jsondecode(aws_sqs_queue.dead_letter.redrive_allow_policy).sourceQueueArns) == toset(["arn:aws:sqs:eu-central-1:123456789012:streamer-outbound", "arn:aws:sqs:eu-central-1:123456789012:streamer-parts"]) && jsondecode(aws_sqs_queue_redrive_policy.parts[0].redrive_policy) == { deadLetterTargetArn = "arn:aws:sqs:eu-central-1:123456789012:dead-letters", maxReceiveCount = 10 }
    error_message = "Both queues must share the dead-letter queue: ${aws_sqs_queue.dead_letter.redrive_allow_policy}"
  }

  assert {
    condition     = alltrue([for statement in data.aws_iam_policy_document.delivery.statement : contains(statement.resources, aws_sqs_queue.parts[0].arn) if contains(["ReceiveMessages", "SendMessages"], statement.sid)]) && !contains(data.aws_iam_policy_document.producer.statement[0].resources, aws_sqs_queue.parts[0].arn)
    error_message = "The worker must have permissions on the parts queue, and producers none."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["oldest-part"].dimensions == tomap({ QueueName = "streamer-parts" }) && aws_cloudwatch_metric_alarm.this["oldest-message"].dimensions == tomap({ QueueName = aws_sqs_queue.outbound.name }) && strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "streamer-parts") && strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "PartLatency")
    error_message = "The backlog of parts must have an alarm of its own, and widgets."
  }

  assert {
    condition     = contains(keys(aws_sqs_queue_policy.this), "parts") && terraform_data.guard["parts"].input == { name = "streamer-parts", protected = true }
    error_message = "The queue must demand TLS and be protected."
  }
}

run "shares_follow_the_percentage" {
  command = plan

  variables {
    requests_per_second = 10000
    parts_percent       = 30
    account_concurrency = 1000
  }

  assert {
    condition     = [local.outbound_concurrency, local.parts_concurrency, local.max_posts_per_second, local.reserved_concurrency] == [14, 6, 500, 20]
    error_message = "concurrency and rate: ${jsonencode([local.outbound_concurrency, local.parts_concurrency, local.max_posts_per_second, local.reserved_concurrency])}"
  }
}

run "posts_of_all_environments_stay_below_the_rate" {
  command = plan

  variables {
    requests_per_second = 3000
    parts_percent       = 90
    account_concurrency = 1000
  }

  assert {
    condition     = local.concurrency * local.max_posts_per_second <= 3000 && [local.outbound_concurrency, local.parts_concurrency] == [2, 18]
    error_message = "concurrency and rate: ${jsonencode([local.outbound_concurrency, local.parts_concurrency, local.max_posts_per_second])}"
  }
}

run "pollers_keep_the_share_of_parts" {
  command = plan

  variables {
    provisioned_pollers = { minimum = 2, maximum = 3 }
    parts_percent       = 25
    account_concurrency = 1000
  }

  assert {
    condition     = [local.outbound_concurrency, local.parts_concurrency, local.max_posts_per_second, local.reserved_concurrency] == [30, 10, 25, 40] && aws_lambda_event_source_mapping.parts[0].scaling_config[0].maximum_concurrency == 10
    error_message = "concurrency and rate: ${jsonencode([local.outbound_concurrency, local.parts_concurrency, local.max_posts_per_second, local.reserved_concurrency])}"
  }
}

run "rejects_parts_without_concurrency_for_them" {
  command = plan

  variables {
    account_concurrency = 7
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_reserved_concurrency_of_one_mapping" {
  command = plan

  variables {
    account_concurrency  = 1000
    reserved_concurrency = 2
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_rate_below_one_post_each" {
  command = plan

  variables {
    requests_per_second = 3
  }

  expect_failures = [aws_lambda_event_source_mapping.outbound]
}

run "rejects_parts_beside_fifo" {
  command = plan

  variables {
    fifo = true
  }

  expect_failures = [aws_sqs_queue.parts]
}

run "rejects_percentages_out_of_range" {
  command = plan

  variables {
    parts_percent = 95
  }

  expect_failures = [var.parts_percent]
}
