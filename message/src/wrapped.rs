//! Bodies that are not messages, but what another service or a common mistake makes of one.

use crate::error::DecodeError;

/// Fields that together identify an object, a description of it, and the remedy. The first that matches counts.
const OBJECTS: [(&[&str], &str, &str); 10] = [
    (
        &["TopicArn", "Token", "SubscribeURL"],
        "an SNS subscription confirmation",
        "confirm the subscription, and turn on its raw message delivery (`raw_message_delivery = true` in Terraform)",
    ),
    (
        &["Type", "TopicArn", "Message"],
        "an SNS notification",
        "turn on raw message delivery for the subscription (`raw_message_delivery = true` in Terraform)",
    ),
    (
        &["detail-type", "source", "detail"],
        "an EventBridge event",
        "set the target's input path to `$.detail` (`input_path` in Terraform), or an input transformer that writes \
         a message",
    ),
    (&["specversion", "type", "source"], "a CloudEvent", "send its `data` as the body"),
    (
        &["requestContext", "requestPayload"],
        "the record of a Lambda destination",
        "let the function send its message itself",
    ),
    (&["requestContext", "body"], "a request of API Gateway", "send its `body` as the body"),
    (&["Records"], "an event with `Records`, such as S3's", "let a function make a message of each record"),
    (
        &["messageId", "body"],
        "an SQS record",
        "send its `body` as the body; in EventBridge Pipes with the input template `<$.body>`",
    ),
    (&["body"], "an object with the field `body`", "send the field's value as the body"),
    (&["MessageBody"], "the parameters of `SendMessage`", "send `MessageBody` as the body"),
];

/// Recognises an object that is not a message by the names of its fields.
pub(crate) fn object(has: impl Fn(&str) -> bool) -> Option<DecodeError> {
    let (_, found, remedy) = OBJECTS.iter().find(|(names, ..)| names.iter().all(|name| has(name)))?;
    Some(DecodeError::Wrapped { found, remedy })
}

/// Recognises a text that is not a JSON object.
pub(crate) fn text(body: &str) -> Option<DecodeError> {
    let wrapped = |found, remedy| Some(DecodeError::Wrapped { found, remedy });
    match body.trim_ascii_start() {
        text if text.starts_with('\u{feff}') => wrapped("text with a byte order mark", "remove the mark"),
        text if text.starts_with("{'") => wrapped("a Python dict", "write it with `json.dumps`"),
        text if text.starts_with('"') => {
            let inner = serde_json::from_str::<String>(text).ok()?;
            let is_object = inner.trim_ascii_start().starts_with('{');
            is_object.then_some(())?;
            wrapped("a JSON string with an object in it", "encode the message once, not twice")
        }
        // Base64 of `{"`.
        text if text.starts_with("eyJ") && text.trim_ascii_end().bytes().all(is_base64) => {
            wrapped("base64", "send the text itself")
        }
        _ => None,
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(&byte)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::OutboundMessage;

    const MESSAGE: &str =
        r#"{"version":1,"id":"a","to":{"user":{"tenant":"acme","user":"anna"}},"payload":1}"#;

    fn error(body: &str) -> String {
        OutboundMessage::decode(body).unwrap_err().to_string()
    }

    /// The shapes are those of AWS's documentation.
    #[test]
    fn envelopes_are_named_with_their_remedy() {
        let message: Value = serde_json::from_str(MESSAGE).unwrap();
        let arn = "arn:aws:sns:eu-central-1:123456789012:updates";
        for (body, found, remedy) in [
            (
                json!({"Type": "Notification", "MessageId": "m", "TopicArn": arn, "Message": MESSAGE, "Timestamp": "t",
                       "SignatureVersion": "1", "Signature": "s", "SigningCertURL": "u", "UnsubscribeURL": "u"}),
                "an SNS notification",
                "raw message delivery",
            ),
            (
                json!({"Type": "SubscriptionConfirmation", "MessageId": "m", "Token": "t", "TopicArn": arn,
                       "Message": "You have chosen", "SubscribeURL": "u", "Timestamp": "t"}),
                "an SNS subscription confirmation",
                "confirm the subscription",
            ),
            (
                json!({"version": "0", "id": "e", "detail-type": "Report finished", "source": "reports",
                       "account": "123456789012", "time": "t", "region": "r", "resources": [], "detail": message}),
                "an EventBridge event",
                "input path to `$.detail`",
            ),
            (
                json!({"specversion": "1.0", "id": "e", "type": "report", "source": "/reports", "data": message}),
                "a CloudEvent",
                "`data`",
            ),
            (
                json!({"version": "1.0", "timestamp": "t", "requestContext": {}, "requestPayload": {},
                       "responseContext": {}, "responsePayload": message}),
                "the record of a Lambda destination",
                "itself",
            ),
            (
                json!({"version": "2.0", "requestContext": {}, "body": MESSAGE, "isBase64Encoded": false}),
                "a request of API Gateway",
                "`body`",
            ),
            (json!({"Records": [{"eventSource": "aws:s3"}]}), "an event with `Records`", "of each record"),
            (
                json!({"messageId": "m", "receiptHandle": "r", "body": MESSAGE, "attributes": {}}),
                "an SQS record",
                "`<$.body>`",
            ),
            (json!({"body": message}), "an object with the field `body`", "the field's value"),
            (
                json!({"QueueUrl": "u", "MessageBody": MESSAGE}),
                "the parameters of `SendMessage`",
                "`MessageBody`",
            ),
        ] {
            let error = error(&body.to_string());
            assert!(error.starts_with(&format!("the body is {found}")) && error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn broken_encodings_are_named_with_their_remedy() {
        let base64 = "eyJ2ZXJzaW9uIjoxLCJpZCI6ImEifQ==";
        for (body, found) in [
            (Value::from(MESSAGE).to_string(), "a JSON string with an object in it: encode the message once"),
            (format!("\u{feff}{MESSAGE}"), "text with a byte order mark: remove"),
            (MESSAGE.replace('"', "'"), "a Python dict: write it with `json.dumps`"),
            (base64.to_owned(), "base64: send the text itself"),
        ] {
            let error = error(&body);
            assert!(error.starts_with(&format!("the body is {found}")), "{error}");
        }
        for body in ["\"text\"", "eyJhbGciOi.eyJzdWIi.c2ln", "'", "[{}]", "{"] {
            assert!(error(body).starts_with("the body is not a JSON object"), "{body}");
        }
    }

    /// A message may have any unknown field, and a later version may have these.
    #[test]
    fn messages_with_such_fields_are_valid() {
        let mut message: Value = serde_json::from_str(MESSAGE).unwrap();
        for field in ["Type", "TopicArn", "Message", "detail-type", "source", "detail", "body", "Records"] {
            message[field] = json!("x");
        }
        assert!(OutboundMessage::decode(&message.to_string()).is_ok());
        message["version"] = json!(2);
        assert!(error(&message.to_string()).starts_with("version 2 is not known"));
    }
}
