# Protection of all that holds data: the queues and the tables are deleted together or not at all, and only on request.
#
# SQS has no deletion protection, and prevent_destroy accepts no variable. So a plan compares the names with those that
# were deployed. And since Terraform checks nothing when it destroys, a guard that depends on every other resource, and is
# destroyed first for that reason, refuses.

locals {
  # Null without the table or the queue.
  data = {
    outbound    = local.outbound_name
    parts       = local.has_parts_queue ? local.parts_name : null
    dead_letter = local.dead_letter_name
    table       = local.creates_table ? local.table_name : null
    mailbox     = var.mailbox ? local.mailbox_name : null
    receipts    = var.receipts ? local.receipts_name : null
  }
  arns = {
    outbound    = aws_sqs_queue.outbound.arn
    parts       = one(aws_sqs_queue.parts[*].arn)
    dead_letter = aws_sqs_queue.dead_letter.arn
    table       = one(aws_dynamodb_table.connections[*].arn)
    mailbox     = one(aws_dynamodb_table.mailbox[*].arn)
    receipts    = one(aws_sqs_queue.receipts[*].arn)
  }
  protected = {
    for key, name in local.data : key => name != null && var.deletion_protection && !contains(var.abandon, coalesce(name, "-"))
  }
}

# The names and their protection as they were deployed: a change of input is ignored, so that a plan sees the old ones.
# They are recorded again when the protection changes. A table or a queue that is removed has no protection, so the guard
# alone refuses that.
resource "terraform_data" "deployed" {
  for_each = local.data

  input            = { name = each.value, protected = local.protected[each.key] }
  triggers_replace = local.protected[each.key]

  lifecycle {
    ignore_changes = [input]

    postcondition {
      condition     = !self.output.protected || self.output.name == each.value
      error_message = "This would delete ${coalesce(self.output.name, "-")} with the messages, receipts or connections in it: keep name and fifo as they are, or drain it, list it in abandon, and apply that before this change."
    }
  }

  depends_on = [
    aws_dynamodb_table.connections,
    aws_dynamodb_table.mailbox,
    aws_sqs_queue.dead_letter,
    aws_sqs_queue.outbound,
    aws_sqs_queue.parts,
    aws_sqs_queue.receipts,
  ]
}

# Reads its protection from the state, so that lifting it takes an apply of its own. A replacement under the same name
# has another ARN, which no plan knows yet, and replaces the guard first.
resource "terraform_data" "guard" {
  for_each = local.data

  input            = { name = each.value, protected = local.protected[each.key] }
  triggers_replace = { name = each.value, arn = local.arns[each.key] }

  # The commands are valid for sh and for cmd.exe.
  provisioner "local-exec" {
    when    = destroy
    quiet   = true
    command = self.output.protected ? "echo ${coalesce(self.output.name, "-")} is protected: set deletion_protection = false, or list it in abandon, and apply that first. && exit 1" : "exit 0"
  }

  depends_on = [
    aws_apigatewayv2_api.this,
    aws_apigatewayv2_authorizer.this,
    aws_apigatewayv2_integration.mock,
    aws_apigatewayv2_integration.this,
    aws_apigatewayv2_integration_response.mock,
    aws_apigatewayv2_route.mock,
    aws_apigatewayv2_route.this,
    aws_apigatewayv2_route_response.mock,
    aws_apigatewayv2_stage.this,
    aws_cloudwatch_dashboard.this,
    aws_cloudwatch_log_group.access,
    aws_cloudwatch_log_group.function,
    aws_cloudwatch_composite_alarm.delivery_failing,
    aws_cloudwatch_metric_alarm.refused_connects,
    aws_cloudwatch_metric_alarm.this,
    aws_dynamodb_table.connections,
    aws_dynamodb_table.mailbox,
    aws_iam_policy.producer,
    aws_iam_role.function,
    aws_iam_role_policy.function,
    aws_lambda_event_source_mapping.outbound,
    aws_lambda_event_source_mapping.parts,
    aws_lambda_function.connect,
    aws_lambda_function.this,
    aws_lambda_permission.authorizer,
    aws_lambda_permission.route,
    aws_sqs_queue.dead_letter,
    aws_sqs_queue.outbound,
    aws_sqs_queue.parts,
    aws_sqs_queue.receipts,
    aws_sqs_queue_policy.this,
    aws_sqs_queue_redrive_policy.outbound,
    aws_sqs_queue_redrive_policy.parts,
    terraform_data.deployed,
  ]
}
