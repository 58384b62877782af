# The settings of clients' identities, and the verdicts of connect-handler on them, at plan time.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  jwt_issuers   = ["https://auth.example.com"]
  jwt_audiences = ["streamer"]
}

run "lists_are_joined_with_commas" {
  command = plan

  variables {
    jwt_jwks_url  = "https://auth.example.com/keys?version=1"
    jwt_issuers   = ["auth", "https://auth.example.com"]
    jwt_audiences = ["streamer", "mobile"]
    subprotocols  = ["mqtt", "a!#$%&'*+.^_`|~-b"]
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { JWT_JWKS_URL = "https://auth.example.com/keys?version=1", JWT_ISSUER = "auth,https://auth.example.com", JWT_AUDIENCE = "streamer,mobile", SUBPROTOCOLS = "mqtt,a!#$%&'*+.^_`|~-b" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "any_audience_is_a_value" {
  command = plan

  variables {
    jwt_audiences = ["any"]
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { JWT_ISSUER = "https://auth.example.com", JWT_AUDIENCE = "any" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "public_key_needs_no_audience_and_url" {
  command = plan

  variables {
    jwt_public_key = "-----BEGIN PUBLIC KEY-----"
    jwt_issuers    = ["auth"]
    jwt_audiences  = null
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { JWT_PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----", JWT_ISSUER = "auth" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "issuers_may_be_tenants_of_entra" {
  command = plan

  variables {
    jwt_issuers = ["https://login.microsoftonline.com/{tenantid}/v2.0", "http://127.0.0.1:4566/pool"]
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { JWT_ISSUER = "https://login.microsoftonline.com/{tenantid}/v2.0,http://127.0.0.1:4566/pool", JWT_AUDIENCE = "streamer" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "names_and_pointers_are_claims" {
  command = plan

  variables {
    jwt_audience_claim = "/"
    user_claim         = "/a~1b/~0"
    tenant_claim       = "https://app.example/tenant~2"
    permissions_claim  = "cognito:groups"
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { JWT_ISSUER = "https://auth.example.com", JWT_AUDIENCE = "streamer", JWT_AUDIENCE_CLAIM = "/", USER_CLAIM = "/a~1b/~0", TENANT_CLAIM = "https://app.example/tenant~2", PERMISSIONS_CLAIM = "cognito:groups" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "default_tenant_may_have_256_bytes" {
  command = plan

  variables {
    default_tenant = join("", [for index in range(128) : "ß"])
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { JWT_ISSUER = "https://auth.example.com", JWT_AUDIENCE = "streamer", DEFAULT_TENANT = join("", [for index in range(128) : "ß"]) }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "empty_subprotocols_are_unset" {
  command = plan

  variables {
    subprotocols = []
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { JWT_ISSUER = "https://auth.example.com", JWT_AUDIENCE = "streamer" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "token_is_verified_behind_authorizer" {
  command = plan

  variables {
    authorizer = { function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize" } }
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { JWT_ISSUER = "https://auth.example.com", JWT_AUDIENCE = "streamer" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "authorizer_is_the_source_of_identity" {
  command = plan

  variables {
    identity_source   = "authorizer"
    authorizer        = { function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize" } }
    jwt_issuers       = null
    jwt_audiences     = null
    user_claim        = "user"
    default_tenant    = "acme"
    expire_with_token = false
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { IDENTITY_SOURCE = "authorizer", USER_CLAIM = "user", DEFAULT_TENANT = "acme", EXPIRE_WITH_TOKEN = "false" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "own_route_may_have_the_authorizer" {
  command = plan

  variables {
    identity_source = "authorizer"
    connect_route   = false
    jwt_issuers     = null
    jwt_audiences   = null
  }

  assert {
    condition     = { for name, value in aws_lambda_function.connect[0].environment[0].variables : name => value if !contains(["CONNECTIONS_TABLE", "STAGE", "WEBSOCKET_ENDPOINT"], name) } == { IDENTITY_SOURCE = "authorizer" }
    error_message = "connect: ${jsonencode(aws_lambda_function.connect[0].environment[0].variables)}"
  }
}

run "rejects_missing_token_key" {
  command = plan

  variables {
    jwt_issuers   = null
    jwt_audiences = null
  }

  expect_failures = [var.jwt_public_key]
}

run "rejects_public_key_with_jwks_url" {
  command = plan

  variables {
    jwt_public_key = "-----BEGIN PUBLIC KEY-----"
    jwt_jwks_url   = "https://auth.example.com/jwks.json"
  }

  expect_failures = [var.jwt_public_key]
}

run "rejects_discovery_from_issuer_without_url" {
  command = plan

  variables {
    jwt_issuers = ["https://auth.example.com", "auth"]
  }

  expect_failures = [var.jwt_public_key]
}

run "rejects_discovery_from_issuer_with_query" {
  command = plan

  variables {
    jwt_issuers = ["https://auth.example.com", "https://auth.example.com/?tenant=1"]
  }

  expect_failures = [var.jwt_public_key]
}

run "rejects_discovery_from_issuer_with_credentials" {
  command = plan

  variables {
    jwt_issuers = ["https://auth.example.com", "https://anna:secret@auth.example.com"]
  }

  expect_failures = [var.jwt_public_key]
}

run "rejects_public_key_without_pem" {
  command = plan

  variables {
    jwt_public_key = "secret"
  }

  expect_failures = [var.jwt_public_key]
}

run "rejects_jwks_url_over_http" {
  command = plan

  variables {
    jwt_jwks_url = "http://auth.example.com/jwks.json"
  }

  expect_failures = [var.jwt_jwks_url]
}

run "rejects_jwks_url_with_credentials" {
  command = plan

  variables {
    jwt_jwks_url = "https://anna:secret@auth.example.com/jwks.json"
  }

  expect_failures = [var.jwt_jwks_url]
}

run "rejects_no_issuer" {
  command = plan

  variables {
    jwt_public_key = "-----BEGIN PUBLIC KEY-----"
    jwt_issuers    = []
  }

  expect_failures = [var.jwt_issuers]
}

run "rejects_empty_issuer" {
  command = plan

  variables {
    jwt_public_key = "-----BEGIN PUBLIC KEY-----"
    jwt_issuers    = ["https://auth.example.com", " "]
  }

  expect_failures = [var.jwt_issuers]
}

run "rejects_issuer_with_comma" {
  command = plan

  variables {
    jwt_public_key = "-----BEGIN PUBLIC KEY-----"
    jwt_issuers    = ["auth,other"]
  }

  expect_failures = [var.jwt_issuers]
}

run "rejects_no_audience" {
  command = plan

  variables {
    jwt_audiences = []
  }

  expect_failures = [var.jwt_audiences]
}

run "rejects_empty_audience" {
  command = plan

  variables {
    jwt_audiences = ["streamer", ""]
  }

  expect_failures = [var.jwt_audiences]
}

run "rejects_audience_with_comma" {
  command = plan

  variables {
    jwt_audiences = ["streamer,mobile"]
  }

  expect_failures = [var.jwt_audiences]
}

run "rejects_any_beside_other_audiences" {
  command = plan

  variables {
    jwt_audiences = ["streamer", "any"]
  }

  expect_failures = [var.jwt_audiences]
}

run "rejects_discovery_without_audience" {
  command = plan

  variables {
    jwt_audiences = null
  }

  expect_failures = [var.jwt_audiences]
}

run "rejects_jwks_url_without_audience" {
  command = plan

  variables {
    jwt_jwks_url  = "https://auth.example.com/jwks.json"
    jwt_issuers   = null
    jwt_audiences = null
  }

  expect_failures = [var.jwt_audiences]
}

run "rejects_audience_claim_without_audience" {
  command = plan

  variables {
    jwt_public_key     = "-----BEGIN PUBLIC KEY-----"
    jwt_audiences      = null
    jwt_audience_claim = "client_id"
  }

  expect_failures = [var.jwt_audience_claim]
}

run "rejects_audience_claim_with_any_audience" {
  command = plan

  variables {
    jwt_audiences      = ["any"]
    jwt_audience_claim = "client_id"
  }

  expect_failures = [var.jwt_audience_claim]
}

run "rejects_malformed_pointers" {
  command = plan

  variables {
    jwt_audience_claim = "/~"
    user_claim         = "/a~2"
    tenant_claim       = "/a/b~"
    permissions_claim  = "/a~/b"
  }

  expect_failures = [var.jwt_audience_claim, var.user_claim, var.tenant_claim, var.permissions_claim]
}

run "rejects_empty_claims" {
  command = plan

  variables {
    jwt_audience_claim = ""
    user_claim         = ""
    tenant_claim       = ""
    permissions_claim  = ""
  }

  expect_failures = [var.jwt_audience_claim, var.user_claim, var.tenant_claim, var.permissions_claim]
}

run "rejects_default_tenant_above_256_bytes" {
  command = plan

  variables {
    default_tenant = join("", [for index in range(129) : "ß"])
  }

  expect_failures = [var.default_tenant]
}

run "rejects_empty_default_tenant" {
  command = plan

  variables {
    default_tenant = ""
  }

  expect_failures = [var.default_tenant]
}

run "rejects_control_characters_in_tenants" {
  command = plan

  variables {
    default_tenant  = "a\u202eb"
    allowed_tenants = ["acme", "a\nb"]
  }

  expect_failures = [var.default_tenant, var.allowed_tenants]
}

run "rejects_empty_allowed_tenants" {
  command = plan

  variables {
    allowed_tenants = []
  }

  expect_failures = [var.allowed_tenants]
}

run "rejects_empty_tenant" {
  command = plan

  variables {
    allowed_tenants = ["acme", " "]
  }

  expect_failures = [var.allowed_tenants]
}

run "rejects_tenant_with_comma" {
  command = plan

  variables {
    allowed_tenants = ["a,b"]
  }

  expect_failures = [var.allowed_tenants]
}

run "rejects_tenant_above_256_bytes" {
  command = plan

  variables {
    allowed_tenants = [join("", [for index in range(129) : "ß"])]
  }

  expect_failures = [var.allowed_tenants]
}

run "rejects_empty_subprotocol" {
  command = plan

  variables {
    subprotocols = ["mqtt", ""]
  }

  expect_failures = [var.subprotocols]
}

run "rejects_subprotocol_with_comma" {
  command = plan

  variables {
    subprotocols = ["mqtt,stomp"]
  }

  expect_failures = [var.subprotocols]
}

run "rejects_subprotocol_with_separator" {
  command = plan

  variables {
    subprotocols = ["application/json"]
  }

  expect_failures = [var.subprotocols]
}

run "rejects_subprotocol_outside_ascii" {
  command = plan

  variables {
    subprotocols = ["größe"]
  }

  expect_failures = [var.subprotocols]
}

run "rejects_unknown_identity_source" {
  command = plan

  variables {
    identity_source = "cookie"
  }

  expect_failures = [var.identity_source]
}

run "rejects_authorizer_identity_without_authorizer" {
  command = plan

  variables {
    identity_source = "authorizer"
    jwt_issuers     = null
    jwt_audiences   = null
  }

  expect_failures = [var.identity_source]
}

run "rejects_issuers_with_authorizer_identity" {
  command = plan

  variables {
    identity_source = "authorizer"
    authorizer      = { function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize" } }
    jwt_audiences   = null
    jwt_issuers     = ["https://auth.example.com"]
  }

  expect_failures = [var.jwt_issuers]
}

run "rejects_audiences_with_authorizer_identity" {
  command = plan

  variables {
    identity_source = "authorizer"
    authorizer      = { function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize" } }
    jwt_issuers     = null
    jwt_audiences   = ["any"]
  }

  expect_failures = [var.jwt_audiences]
}

run "rejects_audience_claim_with_authorizer_identity" {
  command = plan

  variables {
    identity_source    = "authorizer"
    authorizer         = { function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize" } }
    jwt_issuers        = null
    jwt_audiences      = null
    jwt_audience_claim = "client_id"
  }

  expect_failures = [var.jwt_audience_claim]
}

run "rejects_expiry_with_authorizer_identity" {
  command = plan

  variables {
    identity_source   = "authorizer"
    authorizer        = { function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize" } }
    jwt_issuers       = null
    jwt_audiences     = null
    expire_with_token = true
  }

  expect_failures = [var.expire_with_token]
}

run "rejects_jwks_url_with_authorizer_identity" {
  command = plan

  variables {
    identity_source = "authorizer"
    authorizer      = { function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize" } }
    jwt_issuers     = null
    jwt_audiences   = null
    jwt_jwks_url    = "https://auth.example.com/jwks.json"
  }

  expect_failures = [var.jwt_jwks_url]
}

run "rejects_public_key_with_authorizer_identity" {
  command = plan

  variables {
    identity_source = "authorizer"
    authorizer      = { function = { arn = "arn:aws:lambda:eu-central-1:123456789012:function:authorize" } }
    jwt_issuers     = null
    jwt_audiences   = null
    jwt_public_key  = "-----BEGIN PUBLIC KEY-----"
  }

  expect_failures = [var.jwt_public_key]
}

run "rejects_identity_source_without_connect" {
  command = plan

  variables {
    connect         = false
    disconnect      = false
    jwt_issuers     = null
    jwt_audiences   = null
    identity_source = "token"
  }

  expect_failures = [aws_lambda_function.this]
}

run "rejects_user_claim_without_connect" {
  command = plan

  variables {
    connect       = false
    disconnect    = false
    jwt_issuers   = null
    jwt_audiences = null
    user_claim    = "oid"
  }

  expect_failures = [aws_lambda_function.this]
}

run "rejects_tenant_claim_without_connect" {
  command = plan

  variables {
    connect       = false
    disconnect    = false
    jwt_issuers   = null
    jwt_audiences = null
    tenant_claim  = "org"
  }

  expect_failures = [aws_lambda_function.this]
}

run "rejects_default_tenant_without_connect" {
  command = plan

  variables {
    connect        = false
    disconnect     = false
    jwt_issuers    = null
    jwt_audiences  = null
    default_tenant = "acme"
  }

  expect_failures = [aws_lambda_function.this]
}

run "rejects_permissions_claim_without_connect" {
  command = plan

  variables {
    connect           = false
    disconnect        = false
    jwt_issuers       = null
    jwt_audiences     = null
    permissions_claim = "scope"
  }

  expect_failures = [aws_lambda_function.this]
}

run "rejects_subprotocols_without_connect" {
  command = plan

  variables {
    connect       = false
    disconnect    = false
    jwt_issuers   = null
    jwt_audiences = null
    subprotocols  = ["mqtt"]
  }

  expect_failures = [aws_lambda_function.this]
}
