//! The cases that producers in any language share: `message/schema/producer-vectors.json`.

mod progress;
mod sends;

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use streamer_message::MessageId;
use streamer_producer::{
    ClientContent, ClientError, Message, MessageBuilder, MessageError, Percent, Producer, ProgressError,
    SendError,
};
use streamer_tests::doubles::CallsDouble;

use crate::sending::URL;

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../message/schema/producer-vectors.json");
    expanded(serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
});

/// Returns the cases of a section.
fn cases(section: &str) -> &'static [Value] {
    VECTORS[section].as_array().unwrap()
}

/// Replaces each `{"$text": […]}` by the text that it describes.
fn expanded(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(expanded).collect(),
        Value::Object(fields) => match fields.get("$text") {
            Some(parts) => parts.as_array().unwrap().iter().map(repeated).collect::<String>().into(),
            None => fields.into_iter().map(|(name, value)| (name, expanded(value))).collect(),
        },
        other => other,
    }
}

fn repeated(part: &Value) -> String {
    match part {
        Value::String(text) => text.clone(),
        part => part[0].as_str().unwrap().repeat(usize::try_from(part[1].as_u64().unwrap()).unwrap()),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Returns the queue's URL of a case.
fn url(case: &Value) -> String {
    let suffix = if case["queue"] == "fifo" { ".fifo" } else { "" };
    format!("{URL}{suffix}")
}

/// Returns the builder for an audience.
fn to(audience: &Value) -> MessageBuilder {
    let (kind, value) = audience.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "connection" => Message::connection(text(value)),
        "connections" => Message::connections(value.as_array().unwrap().iter().map(text)),
        "user" => Message::user(text(&value["tenant"]), text(&value["user"])),
        "tenant" => Message::tenant(text(value)),
        other => panic!("unknown audience {other}"),
    }
}

/// Sets the options of a case.
fn with_options(builder: MessageBuilder, options: &Value) -> MessageBuilder {
    let millis = |value: &Value| Duration::from_millis(value.as_u64().unwrap());
    options.as_object().unwrap().iter().fold(builder, |builder, (name, value)| match name.as_str() {
        "id" => builder.id(text(value)),
        "request" => builder.request(text(value)),
        "supersedable" => builder.supersedable(value.as_bool().unwrap()),
        "expires_in_ms" => builder.expires_in(millis(value)),
        "expires_at_ms" => builder.expires_at(SystemTime::UNIX_EPOCH + millis(value)),
        "keep_s" => builder.keep(Duration::from_secs_f64(value.as_f64().unwrap())),
        "receipt" => builder.receipt(),
        "trace" => builder.trace(text(value)),
        "fair_queue_tenant" => builder.fair_queue_tenant(text(value)),
        other => panic!("unknown option {other}"),
    })
}

/// Sets the content of a case.
fn with_content(builder: MessageBuilder, content: &Value) -> Result<Message, MessageError> {
    let (kind, value) = content.as_object().unwrap().iter().next().unwrap();
    let (message, details) = (value["message"].as_str(), value.get("details"));
    match kind.as_str() {
        "acknowledgment" => builder.acknowledgment(message),
        "response" => builder.response(value),
        "complete" => builder.complete(value),
        "payload" => builder.payload(value),
        "json" => builder.json(text(value)),
        "progress" => {
            let percent = u8::try_from(value["percent"].as_u64().unwrap()).unwrap();
            let Some(details) = details else { return builder.progress(percent, message) };
            let progress = Percent::try_from(percent)?;
            builder.content(ClientContent::Progress { progress, message, details: Some(details) })
        }
        "error" => {
            let code = value["code"].as_str().unwrap();
            let Some(details) = details else { return builder.error(code, message.unwrap()) };
            let error = ClientError::new(code, message.unwrap()).with_details(details);
            builder.content(ClientContent::Error { error })
        }
        other => panic!("unknown content {other}"),
    }
}

/// Returns the kind of an error, as the cases name it.
fn kind(error: &ProgressError) -> &'static str {
    use streamer_producer::PayloadError;
    match error {
        ProgressError::Percent(_) | ProgressError::Message(MessageError::Percent(_)) => "percent",
        ProgressError::Backwards { .. } => "backwards",
        ProgressError::Message(error) => match error {
            MessageError::Id(_) => "id",
            MessageError::NoRecipient => "no_recipient",
            MessageError::Expiry { .. } => "expiry",
            MessageError::Keep(_) => "keep",
            MessageError::KeepAudience => "keep_audience",
            MessageError::KeptPayload { .. } => "kept_payload",
            MessageError::NoRequest => "no_request",
            MessageError::Payload(PayloadError::NotJson(_)) => "payload_not_json",
            MessageError::Payload(PayloadError::TooLarge { .. }) => "payload_too_large",
            other => panic!("{other}"),
        },
        ProgressError::Send(error) => match error {
            SendError::TenantOnFifo => "tenant_on_fifo",
            SendError::Refused { .. } => "refused",
            SendError::NotConfigured { .. } => "not_configured",
            SendError::TimedOut { .. } => "timed_out",
            SendError::Closed => "closed",
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

/// Compares an error with the one that a case expects.
fn assert_refused(case: &str, error: &ProgressError, refused: &Value) {
    assert_eq!(kind(error), refused["kind"], "{case}: {error}");
    if let Some(text) = refused["text"].as_str() {
        assert_eq!(error.to_string(), text, "{case}");
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// Replaces `{id}`, `{seq}` and `{expires_at}` in an expected body by the values of the sent one, if these are valid.
/// All bodies of a message have one `seq`.
fn filled(
    expected: &str,
    sent: &str,
    began: Duration,
    options: &Value,
    message_seq: &mut Option<u64>,
) -> String {
    // A text of JSON with a lone surrogate is not a `Value`.
    let body: Value = serde_json::from_str(sent).unwrap_or_default();
    let mut filled = expected.to_owned();
    if expected.contains("{id}") {
        let id = text(&body["id"]);
        let created = MessageId::new(&*id).unwrap().created_at().unwrap();
        assert!(u128::from(created).abs_diff(began.as_millis()) < 60_000, "{id}");
        filled = filled.replace("{id}", &id);
    }
    if expected.contains("{seq}") {
        let seq = body["request"]["seq"].as_u64().unwrap();
        assert!(u128::from(seq).abs_diff(began.as_micros()) < 60_000_000, "{seq}");
        assert_eq!(*message_seq.get_or_insert(seq), seq);
        filled = filled.replace("{seq}", &seq.to_string());
    }
    if expected.contains("{expires_at}") {
        let expires_at = u128::from(body["expires_at"].as_u64().unwrap());
        let expires_in = u128::from(options["expires_in_ms"].as_u64().unwrap());
        let window = began.as_millis() + expires_in..=since_epoch().as_millis() + expires_in;
        assert!(window.contains(&expires_at), "{expires_at} is not in {window:?}");
        filled = filled.replace("{expires_at}", &expires_at.to_string());
    }
    filled
}

#[tokio::test(start_paused = true)]
async fn messages_are_those_of_the_vectors() {
    let mut last_seq = 0;
    for case in cases("messages") {
        let (name, began) = (text(&case["name"]), since_epoch());
        let queue = CallsDouble::taking(Duration::ZERO);
        let built = with_content(with_options(to(&case["to"]), &case["options"]), &case["content"]);
        let sent = match built {
            Ok(message) => Producer::new(&queue.client(), url(case)).send(message).await.map_err(Into::into),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = sent {
            assert_refused(&name, &error, &case["refused"]);
            continue;
        }
        let entries: Vec<_> = queue.calls().into_iter().flat_map(|call| call.entries).collect();
        let expected = case["entries"].as_array().unwrap_or_else(|| panic!("{name} is not refused"));
        assert_eq!(entries.len(), expected.len(), "{name}");
        let mut seq = None;
        for (entry, expected) in entries.iter().zip(expected) {
            let body = expected["body"].as_str().unwrap();
            let body = filled(body, &entry.body, began, &case["options"], &mut seq);
            assert!(entry.body == body, "{name}: {} is not {body}", entry.body);
            let attributes = [&entry.group, &entry.deduplication, &entry.trace];
            let names = ["group", "deduplication", "trace"];
            assert_eq!(
                attributes.map(|value| json!(value)),
                names.map(|name| expected[name].clone()),
                "{name}"
            );
        }
        assert!(seq.is_none_or(|seq| seq > last_seq), "{name}: {seq:?} after {last_seq}");
        last_seq = seq.unwrap_or(last_seq);
    }
}

#[test]
fn percentages_are_those_of_the_vectors() {
    for case in cases("percent") {
        let [done, total, percent] = ["done", "total", "percent"].map(|name| case[name].as_u64().unwrap());
        assert_eq!(u64::from(Percent::of(done, total).get()), percent, "{case}");
    }
}
