# The connection table and the mailbox table.

resource "aws_dynamodb_table" "connections" {
  #checkov:skip=CKV_AWS_119:Encrypted with DynamoDB's own key, or with var.kms_key_arn.
  count = local.creates_table ? 1 : 0

  name                        = local.table_name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = local.stack.table.hash_key
  deletion_protection_enabled = local.protected.table
  tags                        = var.tags

  dynamic "attribute" {
    for_each = toset(concat([local.stack.table.hash_key], local.stack.table.indexes[*].hash_key))

    content {
      name = attribute.value
      type = "S"
    }
  }

  dynamic "global_secondary_index" {
    for_each = local.stack.table.indexes

    content {
      name               = global_secondary_index.value.name
      hash_key           = global_secondary_index.value.hash_key
      projection_type    = "INCLUDE"
      non_key_attributes = local.stack.table.projection
    }
  }

  ttl {
    attribute_name = local.stack.table.ttl_attribute
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  # Without a key of the caller, DynamoDB encrypts the table with a key that it owns.
  server_side_encryption {
    enabled     = var.kms_key_arn != null
    kms_key_arn = var.kms_key_arn
  }
}

# One stream of kept messages for each user.
resource "aws_dynamodb_table" "mailbox" {
  #checkov:skip=CKV_AWS_119:Encrypted with DynamoDB's own key, or with var.kms_key_arn.
  count = var.mailbox ? 1 : 0

  name                        = local.mailbox_name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = local.stack.mailbox.hash_key
  range_key                   = local.stack.mailbox.range_key
  deletion_protection_enabled = local.protected.mailbox
  tags                        = var.tags

  dynamic "attribute" {
    for_each = toset([local.stack.mailbox.hash_key, local.stack.mailbox.range_key])

    content {
      name = attribute.value
      type = "S"
    }
  }

  ttl {
    attribute_name = local.stack.mailbox.ttl_attribute
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = var.kms_key_arn != null
    kms_key_arn = var.kms_key_arn
  }
}
