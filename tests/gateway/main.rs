//! The client of API Gateway that the functions share, over the network and compared with the AWS SDK's client.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod clock_skew;
mod connections;
mod credentials;
mod failure_matrix;
mod handshakes;
mod http2;
mod lost_connections;
mod sdk;

use std::time::Duration;

use bytes::Bytes;
use streamer_gateway::Gateway as _;
use streamer_tests::{
    event::{batch, message},
    wire::{Reply, WireGateway},
    worker::Rig,
};

use self::client::api;

/// A connection id is one segment of the path, and the payload arrives unchanged.
#[tokio::test]
async fn connection_ids_cannot_change_the_url() {
    let gateway = WireGateway::start(|_| Reply::Answer(200, String::new())).await.unwrap();
    let api = api(&gateway.endpoint()).await;
    for (id, path) in [
        ("L0SM9cOFvHcCIhw=", "L0SM9cOFvHcCIhw%3D"),
        ("a/../b", "a%2F..%2Fb"),
        ("a?b=c&d#e", "a%3Fb%3Dc%26d%23e"),
        ("50%", "50%25"),
        ("a\r\nHost: evil", "a%0D%0AHost%3A%20evil"),
        ("é+", "%C3%A9%2B"),
    ] {
        let payload = Bytes::from(format!("{{ \"id\":\t{id:?} }}"));
        api.post(&id.try_into().unwrap(), payload.clone()).await;
        let request = gateway.requests().pop().unwrap();
        assert_eq!(request.line, format!("POST /stage/@connections/{path} HTTP/1.1"));
        assert_eq!(request.body, payload);
    }
}

#[tokio::test]
async fn invocation_delivers_over_the_network() -> anyhow::Result<()> {
    let gateway = WireGateway::start(|index| match index {
        0 => Reply::Late(Duration::from_millis(20), 200),
        _ => Reply::Answer(200, String::new()),
    })
    .await?;
    let rig = Rig::new(api(&gateway.endpoint()).await);
    let reported = rig.invoke(batch([message("m", &["a", "b"]).to_string()])).await?;
    assert_eq!((reported.len(), gateway.requests().len()), (0, 2));
    Ok(())
}
