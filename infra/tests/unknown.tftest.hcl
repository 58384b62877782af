# Values that are unknown when Terraform plans decide about no number of resources.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "plans_beside_resources_of_the_same_apply" {
  command = plan

  module {
    source = "./tests/unknown"
  }

  assert {
    condition     = keys(output.functions) == ["connect", "delivery"]
    error_message = "functions: ${jsonencode(keys(output.functions))}"
  }
}
