//! The events of a WebSocket API: `$connect`, `$disconnect` and messages.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::object::{Object, read};

/// An event of any route. A header or a query parameter may hold a token, and a body is confidential, so the event does
/// not implement `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WebSocketEvent {
    /// The connection's id.
    pub connection_id: Option<String>,
    /// The key of the route.
    pub route_key: Option<String>,
    /// `CONNECT`, `MESSAGE` or `DISCONNECT`.
    pub event_type: Option<String>,
    /// The API's id.
    pub api_id: Option<String>,
    /// The name of the API's stage.
    pub stage: Option<String>,
    /// The client's address.
    pub source_ip: Option<String>,
    /// The header `User-Agent`, as API Gateway repeats it.
    pub user_agent: Option<String>,
    /// Why the connection ended: the close code.
    pub disconnect_status_code: Option<i64>,
    /// Why the connection ended: the text.
    pub disconnect_reason: Option<String>,
    /// The context of a Lambda authorizer, as JSON.
    pub authorizer: Option<String>,
    /// Names and values of the headers, as the client wrote them.
    pub headers: Vec<(String, String)>,
    /// Names and values of the query parameters.
    pub query: Vec<(String, String)>,
    /// The message that the client sent.
    pub body: Option<String>,
}

impl WebSocketEvent {
    /// Returns the values of a header, whose name is case-insensitive.
    pub fn header(&self, name: &str) -> impl Iterator<Item = &str> {
        values(&self.headers, move |found| found.eq_ignore_ascii_case(name))
    }

    /// Returns the values of a query parameter, whose name is case-sensitive.
    pub fn query(&self, name: &str) -> impl Iterator<Item = &str> {
        values(&self.query, move |found| found == name)
    }

    fn read(json: &RawValue) -> Self {
        let event = Object::read(json);
        let context = event.object("requestContext");
        let identity = context.object("identity");
        Self {
            connection_id: context.field("connectionId"),
            route_key: context.field("routeKey"),
            event_type: context.field("eventType"),
            api_id: context.field("apiId"),
            stage: context.field("stage"),
            source_ip: identity.field("sourceIp"),
            user_agent: identity.field("userAgent"),
            disconnect_status_code: context.field("disconnectStatusCode"),
            disconnect_reason: context.field("disconnectReason"),
            authorizer: context.get("authorizer").map(|json| json.get().to_owned()),
            headers: merged(&event, "multiValueHeaders", "headers"),
            query: merged(&event, "multiValueQueryStringParameters", "queryStringParameters"),
            body: event.field("body"),
        }
    }
}

fn values(pairs: &[(String, String)], is_wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
    pairs.iter().filter(move |(name, _)| is_wanted(name)).map(|(_, value)| value.as_str())
}

/// Reads parameters from their two forms. The form `single` has the last value of each name only.
fn merged(event: &Object<'_>, multiple: &str, single: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = pairs(event.object(multiple)).collect();
    let others: Vec<_> = self::pairs(event.object(single))
        .filter(|(name, _)| pairs.iter().all(|(found, _)| found != name))
        .collect();
    pairs.extend(others);
    pairs
}

fn pairs(object: Object<'_>) -> impl Iterator<Item = (String, String)> {
    object.into_fields().flat_map(|(name, value)| {
        let list = read::<Vec<&RawValue>>(value).unwrap_or_else(|| vec![value]);
        list.into_iter().filter_map(read).map(move |value| (name.clone().into_owned(), value))
    })
}

impl<'de> Deserialize<'de> for WebSocketEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Self::read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn event(json: &Value) -> WebSocketEvent {
        serde_json::from_str(&json.to_string()).unwrap()
    }

    #[test]
    fn parameters_are_read_in_both_forms() {
        let read = event(&json!({
            "headers": {"Authorization": "b", "Host": "h", "n": 1, "nothing": null},
            "multiValueHeaders": {"Authorization": ["a", "b", null], "X": "x"},
            "queryStringParameters": {"q": "2", "Q": "3"},
            "multiValueQueryStringParameters": {"q": ["1", "2"]},
        }));
        assert_eq!(read.header("AUTHORIZATION").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            (read.header("host").next(), read.header("x").next(), read.header("n").next()),
            (Some("h"), Some("x"), None)
        );
        assert_eq!(
            (read.query("q").collect::<Vec<_>>(), read.query("Q").collect::<Vec<_>>()),
            (vec!["1", "2"], vec!["3"])
        );
        for none in [json!(null), json!([]), json!("text")] {
            let read =
                event(&json!({"headers": none, "multiValueHeaders": none, "queryStringParameters": none}));
            assert!(read.headers.is_empty() && read.query.is_empty());
        }
    }

    #[test]
    fn message_has_route_and_body() {
        let read = event(&json!({
            "requestContext": {"connectionId": "c", "routeKey": "streamer.sync", "eventType": "MESSAGE", "messageId": 7},
            "body": "{\"type\":\"streamer.sync\"}",
            "isBase64Encoded": false,
        }));
        assert_eq!(
            (read.route_key.as_deref(), read.event_type.as_deref(), read.body.as_deref()),
            (Some("streamer.sync"), Some("MESSAGE"), Some(r#"{"type":"streamer.sync"}"#))
        );
        assert_eq!(event(&json!({"body": null})).body, None);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(null)), Just(json!(1.5)), Just(json!("text")), Just(json!(true))];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map("[a-z]{1,4}", inner, 0..3).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_json_is_an_event(any in json_value(), context in json_value(), unused in json_value()) {
            event(&any);
            event(&json!({"requestContext": context, "headers": any}));
            let read = event(&json!({
                "requestContext": {"connectionId": "c", "connectedAt": unused, "requestTimeEpoch": unused, "identity": any},
                "isBase64Encoded": unused,
                "body": unused,
            }));
            prop_assert_eq!(read.connection_id.as_deref(), Some("c"));
        }
    }
}
