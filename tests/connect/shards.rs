//! The shard in which `$connect` writes a connection's row.

use streamer_cli::stack::issuer::{ISSUER, Issuer};
use streamer_connections::TenantShards;
use streamer_message::ConnectionId;
use streamer_tests::{
    doubles::TableDouble,
    event::{CONNECTION, connect},
};

use crate::{
    setup::{claims, configured},
    text,
};

#[tokio::test]
async fn row_is_in_configured_shard() {
    let (issuer, id) = (Issuer::generate().unwrap(), ConnectionId::new(CONNECTION).unwrap());
    let token = issuer.sign(&claims(&serde_json::json!({}))).unwrap();
    let mut written = Vec::new();
    for count in ["", "1", "8", "64", "256"] {
        let table = TableDouble::default();
        let variables = [
            ("TENANT_SHARDS", count),
            ("JWT_PUBLIC_KEY", issuer.public_key.as_str()),
            ("JWT_ISSUER", ISSUER),
            ("JWT_AUDIENCE", "streamer"),
        ];
        let response = configured(variables, &table).handle(connect(Some(&token))).await;
        assert_eq!(response.status_code, 200);
        let shards =
            count.parse().ok().map_or(TenantShards::DEFAULT, |count| TenantShards::new(count).unwrap());
        assert_eq!(text(&table.rows()[CONNECTION], "tenant_shard"), format!("acme#{}", shards.of(&id)));
        written.push(shards.of(&id));
    }
    assert_eq!((written[0], written[1]), (written[2], 0));
    written.dedup();
    assert!(written.len() >= 4, "the number changes the shard: {written:?}");
}
