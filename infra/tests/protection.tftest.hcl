# Queues and tables are deleted only after an apply that lifts their protection.

mock_provider "aws" {
  source = "./tests/mocks"
}

# The smallest deployment that has all queues and both tables.
variables {
  api      = { id = "e5d4c3b2a1", stage = "prod" }
  table    = true
  mailbox  = true
  receipts = true
}

run "protected_deployment_is_applied" {
  assert {
    condition     = { for key, guard in terraform_data.guard : key => guard.output if guard.output.name != null } == { outbound = { name = "streamer-outbound", protected = true }, dead_letter = { name = "streamer-dead-letters", protected = true }, table = { name = "streamer_connections", protected = true }, mailbox = { name = "streamer_mailbox", protected = true }, receipts = { name = "streamer-receipts", protected = true } }
    error_message = "guard: ${jsonencode(terraform_data.guard)}"
  }
}

run "rejects_rename" {
  command = plan

  variables {
    name = "chat"
  }

  expect_failures = [terraform_data.deployed]
}

run "rejects_change_of_fifo" {
  command = plan

  variables {
    fifo = true
  }

  expect_failures = [terraform_data.deployed]
}

run "rejects_rename_together_with_abandon" {
  command = plan

  variables {
    name    = "chat"
    abandon = ["streamer-outbound", "streamer-dead-letters", "streamer-receipts", "streamer_connections", "streamer_mailbox"]
  }

  expect_failures = [terraform_data.deployed]
}

run "abandon_lifts_protection_by_name" {
  variables {
    abandon = ["streamer-outbound", "streamer-dead-letters"]
  }

  assert {
    condition     = { for key, guard in terraform_data.guard : key => guard.output.protected } == { outbound = false, parts = false, dead_letter = false, table = true, mailbox = true, receipts = true } && aws_dynamodb_table.connections[0].deletion_protection_enabled && aws_dynamodb_table.mailbox[0].deletion_protection_enabled
    error_message = "guard: ${jsonencode(terraform_data.guard)}"
  }
}

run "rejects_rename_of_a_table_not_abandoned" {
  command = plan

  variables {
    name    = "chat"
    abandon = ["streamer-outbound", "streamer-dead-letters"]
  }

  expect_failures = [terraform_data.deployed]
}

run "rejects_rename_of_a_mailbox_not_abandoned" {
  command = plan

  variables {
    name    = "chat"
    abandon = ["streamer-outbound", "streamer-dead-letters", "streamer-receipts", "streamer_connections"]
  }

  expect_failures = [terraform_data.deployed]
}

run "abandoned_queues_become_fifo" {
  variables {
    fifo    = true
    abandon = ["streamer-outbound", "streamer-dead-letters"]
  }

  assert {
    condition     = terraform_data.deployed["outbound"].output == { name = "streamer-outbound.fifo", protected = true } && terraform_data.guard["outbound"].output.protected && terraform_data.deployed["receipts"].output == { name = "streamer-receipts", protected = true }
    error_message = "The new queues must be protected, though the old ones were abandoned, and the receipts queue must stay."
  }
}

run "all_but_receipts_are_abandoned" {
  variables {
    fifo    = true
    abandon = ["streamer-outbound.fifo", "streamer-dead-letters.fifo", "streamer_connections", "streamer_mailbox"]
  }

  assert {
    condition     = [for key, guard in terraform_data.guard : key if guard.output.protected] == ["receipts"]
    error_message = "guard: ${jsonencode(terraform_data.guard)}"
  }
}

run "rejects_rename_of_receipts_not_abandoned" {
  command = plan

  variables {
    name    = "chat"
    fifo    = true
    abandon = ["streamer-outbound.fifo", "streamer-dead-letters.fifo", "streamer_connections", "streamer_mailbox"]
  }

  expect_failures = [terraform_data.deployed]
}

run "abandoned_deployment_is_prepared_for_rename" {
  variables {
    fifo    = true
    abandon = ["streamer-outbound.fifo", "streamer-dead-letters.fifo", "streamer-receipts", "streamer_connections", "streamer_mailbox"]
  }

  assert {
    condition     = !aws_dynamodb_table.connections[0].deletion_protection_enabled && !aws_dynamodb_table.mailbox[0].deletion_protection_enabled
    error_message = "DynamoDB would refuse to delete the tables."
  }
}

run "abandoned_deployment_is_renamed" {
  variables {
    name    = "chat"
    fifo    = true
    abandon = ["streamer-outbound.fifo", "streamer-dead-letters.fifo", "streamer-receipts", "streamer_connections", "streamer_mailbox"]
  }

  assert {
    condition     = { for key, guard in terraform_data.guard : key => guard.output if guard.output.name != null } == { outbound = { name = "chat-outbound.fifo", protected = true }, dead_letter = { name = "chat-dead-letters.fifo", protected = true }, table = { name = "chat_connections", protected = true }, mailbox = { name = "chat_mailbox", protected = true }, receipts = { name = "chat-receipts", protected = true } }
    error_message = "guard: ${jsonencode(terraform_data.guard)}"
  }
}

run "abandoned_mailbox_is_removed" {
  variables {
    name    = "chat"
    fifo    = true
    abandon = ["chat_mailbox"]
  }

  assert {
    condition     = terraform_data.guard["table"].output.protected && !terraform_data.guard["mailbox"].output.protected
    error_message = "guard: ${jsonencode(terraform_data.guard)}"
  }
}

run "deployment_without_mailbox_protects_the_rest" {
  variables {
    name    = "chat"
    fifo    = true
    mailbox = false
  }

  assert {
    condition     = length(aws_dynamodb_table.mailbox) == 0 && terraform_data.guard["mailbox"].output.name == null && !terraform_data.guard["mailbox"].output.protected && terraform_data.guard["table"].output.protected
    error_message = "guard: ${jsonencode(terraform_data.guard)}"
  }
}

run "abandoned_receipts_queue_is_removed" {
  variables {
    name    = "chat"
    fifo    = true
    mailbox = false
    abandon = ["chat-receipts"]
  }

  assert {
    condition     = terraform_data.guard["outbound"].output.protected && !terraform_data.guard["receipts"].output.protected
    error_message = "guard: ${jsonencode(terraform_data.guard)}"
  }
}

run "deployment_without_receipts_protects_the_rest" {
  variables {
    name     = "chat"
    fifo     = true
    mailbox  = false
    receipts = false
  }

  assert {
    condition     = length(aws_sqs_queue.receipts) == 0 && terraform_data.guard["receipts"].output.name == null && !terraform_data.guard["receipts"].output.protected && terraform_data.guard["outbound"].output.protected
    error_message = "guard: ${jsonencode(terraform_data.guard)}"
  }
}

# The tests' own cleanup destroys the deployment.
run "protection_is_lifted" {
  variables {
    name                = "chat"
    fifo                = true
    mailbox             = false
    receipts            = false
    deletion_protection = false
  }

  assert {
    condition     = !anytrue([for guard in terraform_data.guard : guard.output.protected])
    error_message = "guard: ${jsonencode(terraform_data.guard)}"
  }
}
