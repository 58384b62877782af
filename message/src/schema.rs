//! Checks that the committed JSON Schemas match the types. After a change of the types, regenerate them:
//! `UPDATE_SCHEMA=1 cargo test -p streamer-message`.

use std::{borrow::Cow, fs, path::Path};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};
use serde_json::Value;

use crate::{
    UserId,
    client::ClientMessage,
    frame::{ClientFrame, ServerFrame},
    outbound::{OutboundMessage, Version},
    receipt::Receipt,
};

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": Self::NUMBER })
    }
}

/// The values of `receipt` that producers write.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum ReceiptField {
    /// Whether the worker sends a receipt.
    Wanted(bool),
    /// The number of the message among those with the same id, from 1, and how many there are.
    Body {
        #[schemars(regex(pattern = "^[1-9][0-9]*/[1-9][0-9]*$"))]
        part: String,
    },
}

fn check(file: &str, schema: &Schema) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(file);
    let generated = format!("{:#}\n", schema.as_value());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let committed: Value = serde_json::from_str(&committed).unwrap_or_default();
    assert!(committed == *schema.as_value(), "{file} does not match the types: run with UPDATE_SCHEMA=1");
}

#[test]
fn outbound_message_schema_matches_type() {
    check("outbound-message.v1.json", &schema_for!(OutboundMessage<'static>));
}

#[test]
fn client_message_schema_matches_type() {
    check("client-message.json", &schema_for!(ClientMessage<'static, Value>));
}

#[test]
fn frame_schemas_match_types() {
    check("client-frame.json", &schema_for!(ClientFrame));
    check("server-frame.json", &schema_for!(ServerFrame<'static>));
}

#[test]
fn receipt_schema_matches_type() {
    check("receipt.v1.json", &schema_for!(Receipt));
}

/// The pattern of ids of users and tenants, in a language of its own, agrees with the type.
#[test]
fn schema_and_type_refuse_the_same_ids() {
    let validator = jsonschema::validator_for(schema_for!(UserId).as_value()).unwrap();
    let characters = (0..=0x2_FFFF).filter_map(char::from_u32).map(|character| format!("a{character}"));
    for id in characters.chain([String::new(), "a".repeat(257), "auth0|5f7c".to_owned()]) {
        let is_valid = UserId::new(id.as_str()).is_ok();
        assert_eq!(validator.is_valid(&Value::String(id.clone())), is_valid, "{:?}", id.chars().last());
    }
}
