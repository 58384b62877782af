# Log groups. CloudWatch extracts the metrics from the functions' logs, which have its embedded metric format.

resource "aws_cloudwatch_log_group" "function" {
  #checkov:skip=CKV_AWS_158:CloudWatch Logs encrypts with its own key. The logs hold neither tokens nor payloads.
  #checkov:skip=CKV_AWS_338:The caller sets var.log_retention_days.
  for_each = local.functions

  name              = "/aws/lambda/${each.value.name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_cloudwatch_log_group" "access" {
  #checkov:skip=CKV_AWS_158:CloudWatch Logs encrypts with its own key. The log holds no data that a client sent.
  #checkov:skip=CKV_AWS_338:The caller sets var.log_retention_days.
  count = local.creates_api ? 1 : 0

  name              = "/aws/apigateway/${local.name}/access"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}
