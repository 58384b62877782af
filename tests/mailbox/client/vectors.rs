//! The cases that clients in any language share.

use std::{collections::BTreeSet, fs};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Client, Effect, Event, Stored};

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    stored: Option<Stored>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    at: u64,
    event: String,
    #[serde(default)]
    frame: Value,
    effects: Vec<Value>,
}

impl Step {
    fn event(&self) -> Event {
        match self.event.as_str() {
            "frame" => Event::Frame { text: self.frame.to_string() },
            other => serde_json::from_value(json!({ "event": other })).unwrap(),
        }
    }
}

/// Returns an effect as the cases write it: a frame as JSON, without the route of API Gateway.
fn written(effect: &Effect) -> Value {
    let mut written = serde_json::to_value(effect).unwrap();
    if let Effect::Send { text } = effect {
        let mut frame: Value = serde_json::from_str(text).unwrap();
        frame.as_object_mut().unwrap().remove("action");
        written = json!({ "effect": "send", "frame": frame });
    }
    written
}

#[test]
fn reference_passes_the_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../message/schema/client-vectors.json");
    let vectors: Vectors = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut events = BTreeSet::new();
    for case in vectors.cases {
        let mut client = Client::new(case.stored);
        for (index, step) in case.steps.iter().enumerate() {
            if step.event == "woken" {
                assert_eq!(client.wake_at(), Some(step.at), "{}, step {}", case.name, index + 1);
            }
            let effects: Vec<_> = client.handle(&step.event(), step.at).iter().map(written).collect();
            assert_eq!(effects, step.effects, "{}, step {}", case.name, index + 1);
            events.insert(step.event.clone());
        }
    }
    assert_eq!(events.len(), 7, "{events:?}");
}
