# The issuer of the clients' tokens: a user pool, and its client for the application in the browser.

resource "aws_cognito_user_pool" "users" {
  name = var.name

  # If users could sign up themselves, everyone could connect.
  admin_create_user_config {
    allow_admin_create_user_only = true
  }

  # The claim `custom:tenant_id` of ID tokens.
  schema {
    name                = "tenant_id"
    attribute_data_type = "String"
    mutable             = true

    string_attribute_constraints {
      min_length = 1
      max_length = 256
    }
  }
}

resource "aws_cognito_user_pool_client" "app" {
  name         = "${var.name}-app"
  user_pool_id = aws_cognito_user_pool.users.id

  # The last flow is for `aws cognito-idp admin-initiate-auth`, which needs credentials of the account.
  explicit_auth_flows           = ["ALLOW_USER_SRP_AUTH", "ALLOW_REFRESH_TOKEN_AUTH", "ALLOW_ADMIN_USER_PASSWORD_AUTH"]
  prevent_user_existence_errors = "ENABLED"

  # A user who could write custom:tenant_id would choose the tenant.
  read_attributes  = ["email", "custom:tenant_id"]
  write_attributes = ["email"]
}
