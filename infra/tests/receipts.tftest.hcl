# Receipts: off by default, all of their parts with them on, beside FIFO queues and the mailbox, and the example.

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
  target          = aws_sqs_queue.receipts
  override_during = plan
  values = {
    arn = "arn:aws:sqs:eu-central-1:123456789012:receipts"
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/receipts"
  }
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
  receipts      = true
}

run "receipts_are_off_by_default" {
  command = plan

  variables {
    mailbox  = true
    receipts = false
  }

  assert {
    condition     = length(aws_sqs_queue.receipts) == 0 && output.receipts_queue_url == null && output.receipts_queue_arn == null && keys(aws_sqs_queue_policy.this) == ["dead_letter", "outbound"]
    error_message = "policies: ${jsonencode(keys(aws_sqs_queue_policy.this))}"
  }

  assert {
    condition     = !anytrue([for short in ["delivery", "mailbox"] : contains(keys(aws_lambda_function.this[short].environment[0].variables), "RECEIPTS_QUEUE_URL")]) && !anytrue([for document in [data.aws_iam_policy_document.delivery, data.aws_iam_policy_document.mailbox[0]] : contains(document.statement[*].sid, "SendReceipts")])
    error_message = "The functions must neither know the queue nor have its permissions."
  }

  assert {
    condition     = length([for name in output.alarms : name if strcontains(name, "receipts")]) == 0
    error_message = "alarms: ${jsonencode(output.alarms)}"
  }

  # Producers may ask for receipts all the same.
  assert {
    condition     = !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "streamer-receipts") && !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "ReceiptsHandedBack") && strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "ReceiptsWithoutQueue")
    error_message = "The dashboard must show receipts that have no queue, and no other metric of receipts."
  }

  assert {
    condition     = terraform_data.guard["receipts"].input.name == null && !terraform_data.guard["receipts"].input.protected
    error_message = "guard: ${jsonencode(terraform_data.guard["receipts"].input)}"
  }
}

run "queue_keeps_receipts_for_14_days" {
  command = plan

  assert {
    condition     = [aws_sqs_queue.receipts[0].name, aws_sqs_queue.receipts[0].message_retention_seconds, aws_sqs_queue.receipts[0].visibility_timeout_seconds] == ["streamer-receipts", 1209600, 180]
    error_message = "queue: ${jsonencode(aws_sqs_queue.receipts[0])}"
  }

  assert {
    condition     = aws_sqs_queue.receipts[0].sqs_managed_sse_enabled && one(data.aws_iam_policy_document.queue["receipts"].statement[0].resources) == "arn:aws:sqs:eu-central-1:123456789012:receipts" && keys(aws_sqs_queue_policy.this) == ["dead_letter", "outbound", "receipts"]
    error_message = "The queue must be encrypted, and deny calls without TLS."
  }

  assert {
    condition     = output.receipts_queue_url == "https://sqs.eu-central-1.amazonaws.com/123456789012/receipts" && output.receipts_queue_arn == "arn:aws:sqs:eu-central-1:123456789012:receipts"
    error_message = "outputs: ${jsonencode([output.receipts_queue_url, output.receipts_queue_arn])}"
  }

  assert {
    condition     = terraform_data.guard["receipts"].input == { name = "streamer-receipts", protected = true }
    error_message = "guard: ${jsonencode(terraform_data.guard["receipts"].input)}"
  }
}

run "receipts_queue_is_never_fifo" {
  command = plan

  variables {
    name = "chat"
    fifo = true
  }

  assert {
    condition     = aws_sqs_queue.outbound.fifo_queue && aws_sqs_queue.receipts[0].fifo_queue != true && aws_sqs_queue.receipts[0].name == "chat-receipts"
    error_message = "queue: ${aws_sqs_queue.receipts[0].name}"
  }
}

run "emulators_need_no_queue_policy" {
  command = plan

  variables {
    require_tls = false
  }

  assert {
    condition     = length(aws_sqs_queue_policy.this) == 0
    error_message = "policies: ${jsonencode(keys(aws_sqs_queue_policy.this))}"
  }
}

run "worker_sends_receipts" {
  command = plan

  assert {
    condition     = aws_lambda_function.this["delivery"].environment[0].variables["RECEIPTS_QUEUE_URL"] == "https://sqs.eu-central-1.amazonaws.com/123456789012/receipts" && !contains(keys(aws_lambda_function.connect[0].environment[0].variables), "RECEIPTS_QUEUE_URL")
    error_message = "delivery: ${jsonencode(aws_lambda_function.this["delivery"].environment[0].variables)}"
  }

  assert {
    condition     = one([for statement in data.aws_iam_policy_document.delivery.statement : "${one(statement.actions)} on ${one(statement.resources)}" if statement.sid == "SendReceipts"]) == "sqs:SendMessage on arn:aws:sqs:eu-central-1:123456789012:receipts"
    error_message = "delivery: ${jsonencode(data.aws_iam_policy_document.delivery.statement)}"
  }

  assert {
    condition     = one(one(data.aws_iam_policy_document.producer.statement).resources) == "arn:aws:sqs:eu-central-1:123456789012:outbound" && !contains(keys(aws_apigatewayv2_route.this), "streamer.ack")
    error_message = "Producers must not be allowed to send receipts, and without a mailbox there is nothing to acknowledge."
  }
}

run "mailbox_sends_receipts_of_acknowledgments" {
  command = plan

  variables {
    mailbox     = true
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/k"
  }

  assert {
    condition     = aws_lambda_function.this["mailbox"].environment[0].variables["RECEIPTS_QUEUE_URL"] == "https://sqs.eu-central-1.amazonaws.com/123456789012/receipts"
    error_message = "mailbox: ${jsonencode(aws_lambda_function.this["mailbox"].environment[0].variables)}"
  }

  assert {
    condition = { for statement in data.aws_iam_policy_document.mailbox[0].statement : statement.sid => "${one(statement.actions)} on ${one(statement.resources)}" if contains(["SendReceipts", "EncryptReceipts"], statement.sid) } == {
      SendReceipts    = "sqs:SendMessage on arn:aws:sqs:eu-central-1:123456789012:receipts"
      EncryptReceipts = "kms:GenerateDataKey on arn:aws:kms:eu-central-1:123456789012:key/k"
    }
    error_message = "mailbox: ${jsonencode(data.aws_iam_policy_document.mailbox[0].statement)}"
  }

  assert {
    condition     = aws_sqs_queue.receipts[0].kms_master_key_id == var.kms_key_arn && aws_sqs_queue.receipts[0].sqs_managed_sse_enabled != true
    error_message = "The queue must be encrypted with the key."
  }
}

run "acknowledgments_reach_the_mailbox" {
  command = plan

  variables {
    mailbox = true
  }

  assert {
    condition     = aws_apigatewayv2_integration.this["streamer.ack"].integration_uri == aws_lambda_function.this["mailbox"].invoke_arn && aws_lambda_permission.route["streamer.ack"].source_arn == "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/production/streamer.ack"
    error_message = "routes: ${jsonencode(keys(aws_apigatewayv2_route.this))}"
  }

  assert {
    condition     = !contains(data.aws_iam_policy_document.mailbox[0].statement[*].sid, "EncryptReceipts")
    error_message = "Without a key of the caller, the function needs no permission for it."
  }
}

run "existing_api_gets_receipts" {
  command = plan

  variables {
    api           = { id = "e5d4c3b2a1", stage = "prod" }
    table         = true
    mailbox       = true
    jwt_issuers   = null
    jwt_audiences = null
  }

  assert {
    condition     = aws_apigatewayv2_route.this["streamer.ack"].api_id == "e5d4c3b2a1" && aws_lambda_permission.route["streamer.ack"].source_arn == "arn:aws:execute-api:eu-central-1:123456789012:e5d4c3b2a1/prod/streamer.ack" && length(aws_sqs_queue.receipts) == 1
    error_message = "routes: ${jsonencode(keys(aws_apigatewayv2_route.this))}"
  }
}

run "worker_alone_sends_receipts" {
  command = plan

  variables {
    api           = { id = "e5d4c3b2a1", stage = "prod" }
    jwt_issuers   = null
    jwt_audiences = null
  }

  assert {
    condition     = keys(output.functions) == ["delivery"] && contains(keys(aws_lambda_function.this["delivery"].environment[0].variables), "RECEIPTS_QUEUE_URL") && length(aws_apigatewayv2_route.this) == 0
    error_message = "functions: ${jsonencode(output.functions)}"
  }
}

run "alarms_and_dashboard_show_receipts" {
  command = plan

  variables {
    mailbox = true
    alarms  = { unread_receipt_seconds = 86400 }
  }

  assert {
    condition     = length(output.alarms) == 21 && length(setsubtract(["streamer-receipts-handed-back", "streamer-receipts-unread"], output.alarms)) == 0
    error_message = "alarms: ${jsonencode(output.alarms)}"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["receipts-unread"].threshold == 86400 && aws_cloudwatch_metric_alarm.this["receipts-unread"].dimensions == tomap({ QueueName = "streamer-receipts" })
    error_message = "alarm: ${jsonencode(aws_cloudwatch_metric_alarm.this["receipts-unread"])}"
  }

  assert {
    condition     = slice(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[*].properties.title, 16, 18) == ["Receipts", "Receipts queue"] && !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "ReceiptsWithoutQueue")
    error_message = "widgets: ${jsonencode(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[*].properties.title)}"
  }
}

run "dashboard_without_mailbox_shows_no_acknowledgments" {
  command = plan

  assert {
    condition     = strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "ReceiptsHandedBack") && !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "Acknowledgments")
    error_message = "widgets: ${aws_cloudwatch_dashboard.this.dashboard_body}"
  }
}

run "rejects_second_route_of_acknowledgments" {
  command = plan

  variables {
    mailbox = true
    routes  = { "streamer.ack" = { function_name = "router", invoke_arn = "arn" } }
  }

  expect_failures = [var.routes]
}

run "rejects_unread_receipts_of_zero_seconds" {
  command = plan

  variables {
    alarms = { unread_receipt_seconds = 0 }
  }

  expect_failures = [var.alarms]
}

run "example_puts_receipts_on_a_bus" {
  command = plan

  module {
    source = "./examples/receipts"
  }

  assert {
    condition     = aws_pipes_pipe.receipts.target_parameters[0].input_template == "<$.body.data>" && aws_pipes_pipe.receipts.target_parameters[0].eventbridge_event_bus_parameters[0].detail_type == "streamer.receipt" && aws_pipes_pipe.receipts.target == aws_cloudwatch_event_bus.receipts.arn
    error_message = "pipe: ${jsonencode(aws_pipes_pipe.receipts.target_parameters)}"
  }

  assert {
    condition     = { for statement in data.aws_iam_policy_document.pipe.statement : statement.sid => one(statement.resources) } == { ReceiveReceipts = aws_pipes_pipe.receipts.source, PutEvents = aws_cloudwatch_event_bus.receipts.arn }
    error_message = "pipe: ${jsonencode(data.aws_iam_policy_document.pipe.statement)}"
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.failed.event_pattern)["detail-type"] == [aws_pipes_pipe.receipts.target_parameters[0].eventbridge_event_bus_parameters[0].detail_type] && jsondecode(aws_cloudwatch_event_rule.failed.event_pattern).source == [aws_pipes_pipe.receipts.target_parameters[0].eventbridge_event_bus_parameters[0].source] && aws_cloudwatch_event_target.failed.event_bus_name == output.event_bus
    error_message = "rule: ${aws_cloudwatch_event_rule.failed.event_pattern}"
  }
}
