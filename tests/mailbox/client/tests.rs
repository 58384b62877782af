//! The rules one by one.

use serde_json::{Value, json};

use super::{Client, Effect, Event, Stored};

/// A client and the effects of each event as JSON, without the payloads.
struct Rig(Client);

fn stored(seq: u64, ids: &[&str]) -> Stored {
    Stored { epoch: "e".to_owned(), seq, ids: ids.iter().map(|id| (*id).to_owned()).collect() }
}

fn live(seq: u64) -> Value {
    json!({ "type": "streamer.message", "stream": "user", "epoch": "e", "seq": seq, "id": format!("m{seq}"), "payload": seq })
}

fn page(n: u64, after: u64, through: u64, top: u64) -> Value {
    let messages: Vec<_> = (after + 1..=through)
        .map(|seq| json!({ "seq": seq, "id": format!("m{seq}"), "payload": seq }))
        .collect();
    json!({
        "type": "streamer.page", "n": n, "stream": "user", "epoch": "e", "after": after, "through": through,
        "top": top, "messages": messages, "missing": [], "expires_in": 7000, "now": 0,
    })
}

impl Rig {
    fn new(seq: u64) -> Self {
        Self(Client::new(Some(stored(seq, &[]))))
    }

    /// A client at a position, registered and caught up at time 0.
    fn caught_up(seq: u64) -> Self {
        let mut rig = Self::new(seq);
        assert_eq!(rig.on(&Event::Opened, 0), [format!("sync 1 hello after {seq}")]);
        assert_eq!(rig.frame(&page(1, seq, seq, seq), 0), ["registered", &format!("caught up {seq}")]);
        rig
    }

    fn on(&mut self, event: &Event, now: u64) -> Vec<String> {
        self.0.handle(event, now).iter().map(text).collect()
    }

    fn frame(&mut self, frame: &Value, now: u64) -> Vec<String> {
        self.on(&Event::Frame { text: frame.to_string() }, now)
    }

    fn wake(&mut self, now: u64) -> Vec<String> {
        assert_eq!(self.0.wake_at(), Some(now));
        self.on(&Event::Woken, now)
    }
}

fn text(effect: &Effect) -> String {
    match effect {
        Effect::Send { text } => {
            let frame: Value = serde_json::from_str(text).unwrap();
            let stream = &frame["streams"][0];
            let hello = if frame["hello"] == true { " hello" } else { "" };
            let start = stream["seq"].as_u64().map_or("oldest".to_owned(), |seq| format!("after {seq}"));
            format!("sync {}{hello} {start}", frame["n"])
        }
        Effect::Deliver { seq, .. } => format!("deliver {seq}"),
        Effect::Gap { range: Some((from, to)), reason, .. } => format!("gap {from} to {to} {reason}"),
        Effect::Gap { range: None, reason, .. } => format!("gap {reason}"),
        Effect::CaughtUp { top, .. } => format!("caught up {top}"),
        Effect::Store(stored) => format!("store {} {}", stored.seq, stored.ids.join(",")),
        Effect::Registered => "registered".to_owned(),
        Effect::Reconnect => "reconnect".to_owned(),
    }
}

#[test]
fn messages_are_delivered_one_by_one() {
    let mut rig = Rig::caught_up(4);
    assert_eq!(rig.frame(&live(5), 1), ["deliver 5"]);
    assert_eq!(rig.frame(&live(6), 2), [""; 0]);
    assert_eq!(rig.on(&Event::Handled, 3), ["store 5 m5", "deliver 6"]);
    assert_eq!(rig.on(&Event::Handled, 4), ["store 6 m5,m6"]);
    assert_eq!(rig.frame(&live(5), 5), [""; 0]);
    assert_eq!(rig.0.wake_at(), None);
}

#[test]
fn first_page_gives_a_position() {
    let mut rig = Rig(Client::new(None));
    assert_eq!(rig.on(&Event::Opened, 0), ["sync 1 hello oldest"]);
    assert_eq!(rig.frame(&live(3), 1), [""; 0]);
    assert_eq!(rig.frame(&page(1, 1, 2, 2), 2), ["store 1 ", "registered", "deliver 2"]);
    assert_eq!(rig.on(&Event::Handled, 3), ["store 2 m2", "caught up 2"]);
    // The page was read before the live message was stored.
    assert_eq!(rig.wake(301), ["sync 2 after 2"]);
    assert_eq!(rig.frame(&page(2, 2, 3, 3), 302), ["deliver 3"]);
}

#[test]
fn pages_follow_until_top() {
    let mut rig = Rig::new(0);
    rig.on(&Event::Opened, 0);
    assert_eq!(rig.frame(&page(1, 0, 2, 5), 1), ["registered", "sync 2 after 2", "deliver 1"]);
    assert_eq!(rig.frame(&page(2, 2, 5, 5), 2), [""; 0]);
    for seq in 1..5 {
        assert!(rig.on(&Event::Handled, 3).contains(&format!("deliver {}", seq + 1)));
    }
    assert_eq!(rig.on(&Event::Handled, 4), ["store 5 m1,m2,m3,m4,m5", "caught up 5"]);
}

#[test]
fn message_ahead_is_held() {
    let mut rig = Rig::caught_up(4);
    assert_eq!(rig.frame(&live(6), 10), [""; 0]);
    assert_eq!(rig.frame(&live(5), 20), ["deliver 5"]);
    assert_eq!(rig.on(&Event::Handled, 30), ["store 5 m5", "deliver 6"]);
    assert_eq!(rig.0.wake_at(), None);
}

#[test]
fn hole_of_300_ms_is_synced() {
    let mut rig = Rig::caught_up(4);
    rig.frame(&live(6), 10);
    assert_eq!(rig.wake(310), ["sync 2 after 4"]);
    assert_eq!(rig.frame(&page(2, 4, 6, 6), 320), ["deliver 5"]);
}

#[test]
fn missing_page_is_asked_for_again() {
    let mut rig = Rig::new(4);
    rig.on(&Event::Opened, 0);
    assert_eq!(rig.wake(5000), [""; 0]);
    assert_eq!(rig.wake(6000), ["sync 2 hello after 4"]);
    assert_eq!(rig.wake(11_000), [""; 0]);
    assert_eq!(rig.wake(13_000), ["sync 3 hello after 4"]);
    assert_eq!(rig.wake(18_000), ["reconnect"]);
    rig.on(&Event::Closed, 18_000);
    assert_eq!(rig.on(&Event::Opened, 19_000), ["sync 4 hello after 4"]);
    // Delays grow over sockets, up to 30 s.
    assert_eq!(rig.wake(24_000), [""; 0]);
    assert_eq!(rig.wake(32_000), ["sync 5 hello after 4"]);
    assert_eq!(rig.wake(37_000), [""; 0]);
    assert_eq!(rig.wake(53_000), ["sync 6 hello after 4"]);
    assert_eq!(rig.wake(58_000), ["reconnect"]);
    rig.on(&Event::Closed, 58_000);
    rig.on(&Event::Opened, 58_000);
    assert_eq!(rig.wake(63_000), [""; 0]);
    assert_eq!(rig.0.wake_at(), Some(93_000));
}

#[test]
fn gaps_are_told_in_order() {
    let mut rig = Rig::new(0);
    rig.on(&Event::Opened, 0);
    let mut page = page(1, 0, 5, 5);
    page["messages"] = json!([{ "seq": 3, "id": "m3", "payload": 3 }]);
    page["missing"] =
        json!([{ "from": 1, "to": 2, "reason": "overflow" }, { "from": 4, "to": 5, "reason": "expired" }]);
    assert_eq!(rig.frame(&page, 1), ["registered", "gap 1 to 2 overflow", "store 2 ", "deliver 3"]);
    assert_eq!(rig.on(&Event::Handled, 2), ["store 3 m3", "gap 4 to 5 expired", "store 5 m3", "caught up 5"]);
}

/// A live message that arrived before it expired closes its part of the gap.
#[test]
fn held_message_is_no_gap() {
    let mut rig = Rig::caught_up(0);
    rig.frame(&live(2), 1);
    rig.on(&Event::Idle, 2);
    let mut page = page(2, 0, 3, 3);
    page["messages"] = json!([]);
    page["missing"] = json!([{ "from": 1, "to": 3, "reason": "expired" }]);
    assert_eq!(rig.frame(&page, 3), ["gap 1 to 1 expired", "store 1 ", "deliver 2"]);
    assert_eq!(rig.on(&Event::Handled, 4), ["store 2 m2", "gap 3 to 3 expired", "store 3 m2"]);
}

#[test]
fn reset_begins_again() {
    let mut rig = Rig::new(41);
    rig.on(&Event::Opened, 0);
    let mut page = page(1, 3, 4, 4);
    (page["epoch"], page["reset"]) = (json!("f"), json!("epoch"));
    assert_eq!(
        rig.frame(&page, 1),
        ["registered", "sync 2 hello after 4", "gap epoch", "store 3 ", "deliver 4"]
    );
    // A page of another sync does not reset.
    let mut late = page.clone();
    late["epoch"] = json!("g");
    assert_eq!(rig.frame(&late, 2), [""; 0]);
}

#[test]
fn repeated_ids_are_dropped() {
    let mut rig = Rig(Client::new(Some(stored(4, &["m5"]))));
    rig.on(&Event::Opened, 0);
    assert_eq!(rig.frame(&page(1, 4, 6, 6), 1), ["registered", "deliver 6"]);
    let mut repeated = live(7);
    repeated["id"] = json!("m6");
    assert_eq!(rig.frame(&repeated, 2), [""; 0]);
    assert_eq!(rig.on(&Event::Handled, 3), ["store 6 m5,m6", "caught up 6"]);
    assert_eq!(rig.frame(&live(8), 4), ["deliver 8"]);
}

#[test]
fn last_128_ids_are_stored() {
    let mut rig = Rig::caught_up(0);
    let mut last = Vec::new();
    for seq in 1..=130 {
        rig.frame(&live(seq), seq);
        last = rig.0.handle(&Event::Handled, seq);
    }
    let Some(Effect::Store(stored)) = last.first() else { panic!("{last:?}") };
    assert_eq!((stored.ids.len(), stored.ids[0].as_str()), (128, "m3"));
}

/// A slow handler bounds the messages that wait. The others come with pages once there is room.
#[test]
fn at_most_1000_messages_wait() {
    let mut rig = Rig::caught_up(0);
    for seq in 1..=1001 {
        rig.frame(&live(seq), 0);
    }
    assert_eq!(rig.0.position, Some(("e".to_owned(), 1000)));
    assert_eq!(rig.wake(300), [""; 0]);
    rig.on(&Event::Handled, 301);
    assert_eq!(rig.wake(600), ["sync 2 after 1000"]);
    rig.frame(&page(2, 1000, 1001, 1001), 601);
    assert_eq!(rig.0.wake_at(), None);
}

#[test]
fn at_most_4_mib_wait() {
    let mut rig = Rig::caught_up(0);
    for seq in 1..=40 {
        let mut large = live(seq);
        large["payload"] = json!("x".repeat(127 * 1024));
        rig.frame(&large, 0);
    }
    assert_eq!(rig.0.position, Some(("e".to_owned(), 32)));
}

#[test]
fn page_with_hole_is_no_answer() {
    let mut rig = Rig::new(0);
    rig.on(&Event::Opened, 0);
    let mut page = page(1, 0, 3, 3);
    page["messages"].as_array_mut().unwrap().remove(1);
    assert_eq!(rig.frame(&page, 1), ["deliver 1"]);
    assert_eq!(rig.wake(5000), [""; 0]);
    assert_eq!(rig.wake(6000), ["sync 2 hello after 1"]);
}

/// During a rotation both sockets deliver, and each message is delivered once.
#[test]
fn rotation_delivers_once() {
    let mut rig = Rig::caught_up(4);
    assert_eq!(rig.on(&Event::Opened, 10), ["sync 2 hello after 4"]);
    assert_eq!(rig.frame(&live(5), 11), ["deliver 5"]);
    assert_eq!(rig.frame(&live(5), 12), [""; 0]);
    assert_eq!(rig.frame(&page(2, 4, 5, 5), 13), ["registered"]);
    assert_eq!(rig.on(&Event::Handled, 14), ["store 5 m5", "caught up 5"]);
}

#[test]
fn other_payloads_are_ignored() {
    let mut rig = Rig::caught_up(4);
    for text in ["", "{}", "[]", r#"{"type":"progress"}"#, r#"{"message":"Internal server error"}"#] {
        assert_eq!(rig.on(&Event::Frame { text: text.to_owned() }, 1), [""; 0]);
    }
}
