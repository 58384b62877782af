//! `streamer.sync` and `streamer.ack`, called as a function on test doubles: the pages posted, the devices registered,
//! the receipts sent, and the failures.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acknowledgments;
mod failures;
mod pages;
mod posts;
mod syncs;
mod written;

use std::time::{Duration, SystemTime};

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use mailbox_handler::{HandlerError, MailboxHandler, time::Time};
use serde_json::{Value, json};
use streamer_gateway::PayloadLimit;
use streamer_mailbox::{Device, Mailbox, NewMessage, Settings, Stream};
use streamer_message::MessageId;
use streamer_tests::{
    doubles::{QueueDouble, TableDouble},
    event::{CONNECTION, client_message, epoch},
    gateway::{MemoryGateway, status},
    mailbox::MemoryTable,
    worker::{ENDPOINT, receipts_queue, telemetry},
};

use self::written::Written;

/// Lambda's timeout in these tests.
const TIMEOUT: Duration = Duration::from_secs(10);

const HOUR: Duration = Duration::from_secs(3600);

/// A handler on test doubles. Its client has been connected for half an hour.
struct Rig {
    handler: MailboxHandler<MemoryGateway, MemoryTable>,
    mailbox: MemoryTable,
    receipts: QueueDouble,
    metrics: Written,
}

/// Returns the time at which the client connected.
fn connected_at() -> SystemTime {
    epoch() - HOUR / 2
}

/// Returns the stream of a user of the tenant `acme`. The client is `anna`.
fn stream_of(user: &str) -> Stream {
    Stream { tenant: "acme".try_into().unwrap(), user: user.try_into().unwrap() }
}

impl Rig {
    fn new(gateway: MemoryGateway) -> Self {
        let (mailbox, metrics) = (MemoryTable::default(), Written::default());
        let receipts = QueueDouble::taking();
        let connections = TableDouble::of_user([(CONNECTION, connected_at())], || true);
        let handler = MailboxHandler {
            connections: connections.client(),
            mailbox: Mailbox::new(mailbox.clone(), Settings::default()),
            gateway,
            endpoint: ENDPOINT.to_owned(),
            payloads: PayloadLimit::default(),
            receipts: receipts_queue(&receipts),
            telemetry: telemetry("mailbox-handler").with_metrics_to(metrics.clone()),
        };
        Self { handler, mailbox, receipts, metrics }
    }

    /// Creates a handler whose gateway accepts every page.
    fn accepting() -> Self {
        Self::new(MemoryGateway::always(status(200)))
    }

    /// Appends a message for the user, which expires `keep` after the epoch.
    async fn keep(&self, user: &str, id: &str, body: &str, keep: Duration) {
        let id = MessageId::new(id).unwrap();
        self.append(user, NewMessage { id: &id, body, until: epoch() + keep, ack: false, tried_since: None })
            .await;
    }

    async fn append(&self, user: &str, message: NewMessage<'_>) {
        let mailbox = Mailbox::new(self.mailbox.clone(), Settings::default());
        let appended = mailbox.append(&stream_of(user), &[message], epoch()).await;
        assert_eq!(appended.positions.len(), 1, "{:?}", appended.failure);
    }

    /// Returns the devices of the client's user.
    async fn devices(&self) -> Vec<Device> {
        let mailbox = Mailbox::new(self.mailbox.clone(), Settings::default());
        mailbox.devices(&stream_of("anna"), epoch()).await.unwrap()
    }

    /// Appends messages with the numbers from 1 to `count` as payloads.
    async fn keep_numbers(&self, count: u64) {
        for number in 1..=count {
            self.keep("anna", &format!("m{number}"), &number.to_string(), HOUR).await;
        }
    }

    /// Sends a frame to the route that it names.
    async fn send(&self, body: &str) -> Result<ApiGatewayProxyResponse, HandlerError> {
        let route = if body.contains("streamer.ack") { "streamer.ack" } else { "streamer.sync" };
        let event = client_message(route, body);
        self.handler.handle(event, Time::start(epoch(), epoch() + TIMEOUT, TIMEOUT)).await
    }

    /// Sends a sync of the user's stream with these fields of the stream's request.
    async fn sync(&self, hello: bool, fields: &Value) -> Result<ApiGatewayProxyResponse, HandlerError> {
        let mut request = json!({ "stream": "user" });
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let sync = json!({ "type": "streamer.sync", "n": 7, "hello": hello, "streams": [request] });
        self.send(&sync.to_string()).await
    }

    /// Returns the frames that were posted to the client.
    fn frames(&self) -> Vec<Value> {
        let texts = self.handler.gateway.texts(CONNECTION);
        texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    /// Syncs after a position in the current epoch, and returns the page.
    async fn page_after(&self, seq: u64) -> Value {
        self.sync(false, &json!({})).await.unwrap();
        let epoch = self.frames().pop().unwrap()["epoch"].clone();
        self.sync(false, &json!({ "epoch": epoch, "seq": seq })).await.unwrap();
        self.frames().pop().unwrap()
    }

    /// Returns the metric's values, by line.
    fn metric(&self, name: &str) -> Vec<f64> {
        let lines = self.metrics.lines();
        lines.iter().filter_map(|line| line[name].as_f64()).collect()
    }
}
