# Cells: the setting of the worker, and the example.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "aws" {
  alias           = "second"
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
}

run "worker_alone_knows_cells" {
  command = plan

  variables {
    cell_endpoints = ["https://a.example.com/a", "https://b.example.com/b"]
  }

  assert {
    condition     = [for short, function in aws_lambda_function.this : short if contains(keys(function.environment[0].variables), "CELL_ENDPOINTS")] == ["delivery"] && aws_lambda_function.this["delivery"].environment[0].variables["CELL_ENDPOINTS"] == "https://a.example.com/a,https://b.example.com/b"
    error_message = jsonencode(aws_lambda_function.this["delivery"].environment[0].variables)
  }
}

run "cells_are_unset_by_default" {
  command = plan

  assert {
    condition     = !contains(keys(aws_lambda_function.this["delivery"].environment[0].variables), "CELL_ENDPOINTS")
    error_message = "The worker must have no CELL_ENDPOINTS."
  }
}

run "rejects_malformed_cell_endpoints" {
  command = plan

  variables {
    cell_endpoints = ["b.example.com"]
  }

  expect_failures = [var.cell_endpoints]
}

run "rejects_empty_cell_endpoints" {
  command = plan

  variables {
    cell_endpoints = []
  }

  expect_failures = [var.cell_endpoints]
}

run "example_delivers_raw_to_each_cell" {
  command = plan

  module {
    source = "./examples/cells"
  }

  override_resource {
    target          = module.first.aws_sqs_queue.outbound
    override_during = plan
    values          = { arn = "arn:aws:sqs:eu-central-1:123456789012:first" }
  }

  override_resource {
    target          = module.second.aws_sqs_queue.outbound
    override_during = plan
    values          = { arn = "arn:aws:sqs:eu-west-1:123456789012:second" }
  }

  assert {
    condition     = { for cell, subscription in aws_sns_topic_subscription.cell : cell => subscription.endpoint } == { first = "arn:aws:sqs:eu-central-1:123456789012:first", second = "arn:aws:sqs:eu-west-1:123456789012:second" }
    error_message = jsonencode({ for cell, subscription in aws_sns_topic_subscription.cell : cell => subscription.endpoint })
  }

  # A message in SNS's envelope is poison, and a filter drops messages without a trace.
  assert {
    condition     = alltrue([for subscription in aws_sns_topic_subscription.cell : subscription.raw_message_delivery && subscription.protocol == "sqs" && subscription.filter_policy == null])
    error_message = "Each subscription must have raw delivery and no filter."
  }

  # What SNS cannot deliver goes to a queue that it may send to, with an alarm.
  assert {
    condition     = alltrue([for cell, subscription in aws_sns_topic_subscription.cell : jsondecode(subscription.redrive_policy).deadLetterTargetArn == aws_sqs_queue.undelivered[cell].arn && aws_sqs_queue_policy.undelivered[cell].queue_url == aws_sqs_queue.undelivered[cell].url && aws_cloudwatch_metric_alarm.undelivered[cell].dimensions.QueueName == aws_sqs_queue.undelivered[cell].name])
    error_message = "Each subscription needs a queue of undelivered messages, with a policy and an alarm."
  }

  assert {
    condition     = one(one(data.aws_iam_policy_document.topic_sends.statement[*].condition)[*].values) == tolist([aws_sns_topic.messages.arn])
    error_message = "Only the topic may send."
  }

  # Receipts of two cells are told apart by their source, which is the stage.
  assert {
    condition     = output.receipts_queue_urls.first != null && output.receipts_queue_urls.second != null && aws_sns_topic.messages.kms_master_key_id == "alias/aws/sns"
    error_message = "Both cells must have receipts, and the topic a key."
  }
}
