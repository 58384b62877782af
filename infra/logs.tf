# Log groups. Metrics come out of the functions' logs, in CloudWatch's embedded metric format.

resource "aws_cloudwatch_log_group" "function" {
  #checkov:skip=CKV_AWS_158:CloudWatch Logs encrypts with its own key. The logs hold neither tokens nor payloads.
  #checkov:skip=CKV_AWS_338:var.log_retention_days is the caller's to choose.
  for_each = local.functions

  name              = "/aws/lambda/${each.value.name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_cloudwatch_log_group" "access" {
  #checkov:skip=CKV_AWS_158:CloudWatch Logs encrypts with its own key. The log holds nothing that a client sent.
  #checkov:skip=CKV_AWS_338:var.log_retention_days is the caller's to choose.
  name              = "/aws/apigateway/${local.name}/access"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}
