# The Lambdas.

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_116:A function's dead-letter queue is for asynchronous invocations, and there are none.
  #checkov:skip=CKV_AWS_117:They call nothing inside a VPC.
  #checkov:skip=CKV_AWS_173:No variable holds a secret: JWT_PUBLIC_KEY is public.
  #checkov:skip=CKV_AWS_272:Code signing needs a signing profile and a bucket, which are the account's to have.
  for_each = local.functions

  function_name                  = each.value.name
  role                           = aws_iam_role.function[each.key].arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.architecture]
  filename                       = each.value.zip
  source_code_hash               = fileexists(each.value.zip) ? filebase64sha256(each.value.zip) : null
  timeout                        = each.value.timeout_seconds
  memory_size                    = each.value.memory_mb
  reserved_concurrent_executions = each.key == local.worker ? local.reserved_concurrency : -1
  tags                           = var.tags

  environment {
    variables = local.environment[each.key]
  }

  # The group's name makes the function wait for it: Lambda would make one without a retention.
  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function[each.key].name
  }

  tracing_config {
    mode = var.tracing ? "Active" : "PassThrough"
  }

  lifecycle {
    precondition {
      condition     = fileexists(each.value.zip)
      error_message = "There is no package ${each.value.zip}: run `streamer package --arch ${var.architecture}`, or set packages to the folder that holds it."
    }
  }

  # Lambda checks at the first invocation what the role may do.
  depends_on = [aws_iam_role_policy.function]
}
