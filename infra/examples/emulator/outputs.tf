# One object for programs: `terraform output -json deployed`.

locals {
  path = "_aws/execute-api/${module.streamer.api_id}/${module.streamer.stage}"
}

output "deployed" {
  description = "Names and URLs of the deployed resources."
  value = {
    endpoint_url          = var.endpoint_url
    region                = local.region
    websocket_url         = "${replace(var.endpoint_url, "/^http/", "ws")}/${local.path}"
    management_endpoint   = module.streamer.management_endpoint
    queue_url             = module.streamer.queue_url
    parts_queue_url       = module.streamer.parts_queue_url
    dead_letter_queue_url = module.streamer.dead_letter_queue_url
    receipts_queue_url    = module.streamer.receipts_queue_url
    connections_table     = module.streamer.connections_table
    mailbox_table         = module.streamer.mailbox_table
    functions             = merge(module.streamer.functions, { router = aws_lambda_function.router.function_name })
    roles                 = merge(module.streamer.roles, { router = aws_iam_role.router.name })
  }
}
