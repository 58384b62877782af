//! Rules of the tables.

use aws_sdk_dynamodb::types::{
    BillingModeSummary, Projection, builders::GlobalSecondaryIndexDescriptionBuilder as Builder,
};

use super::*;

const PROJECTION: [&str; 2] = ["user_id", "endpoint"];

fn element(name: &str, kind: KeyType) -> KeySchemaElement {
    KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
}

fn by_user() -> Builder {
    let projection = Projection::builder().projection_type(ProjectionType::Include);
    let projection = projection.set_non_key_attributes(Some(PROJECTION.map(str::to_owned).to_vec()));
    GlobalSecondaryIndexDescription::builder()
        .index_name("by_user")
        .index_status(IndexStatus::Active)
        .key_schema(element("tenant_user", KeyType::Hash))
        .projection(projection.build())
}

fn check(built: Builder) -> (Verdict, String) {
    let table = TableDescription::builder().global_secondary_indexes(built.build()).build();
    let expected = [Index { name: "by_user".to_owned(), hash_key: "tenant_user".to_owned() }];
    let check = indexes(&table, &expected, &PROJECTION.map(str::to_owned));
    (check.verdict, check.seen)
}

#[test]
fn index_is_active_with_its_projection() {
    assert_eq!(check(by_user()), (Verdict::Ok, "by_user".to_owned()));
    let all = Projection::builder().projection_type(ProjectionType::All).build();
    assert_eq!(check(by_user().projection(all)).0, Verdict::Ok);
    assert_eq!(check(by_user().index_status(IndexStatus::Updating)).0, Verdict::Ok);
}

#[test]
fn faulty_indexes_are_named() {
    let failed = |text: &str| (Verdict::Failed, text.to_owned());
    assert_eq!(check(by_user().index_name("other")), failed("no index by_user"));
    assert_eq!(check(by_user().index_status(IndexStatus::Deleting)), failed("by_user: DELETING"));
    let creating = check(by_user().index_status(IndexStatus::Creating));
    assert_eq!(creating, (Verdict::Warning, "by_user: is being created".to_owned()));
    let keys = Projection::builder().projection_type(ProjectionType::KeysOnly).build();
    assert_eq!(check(by_user().projection(keys)), failed("by_user: without user_id, endpoint"));
    let other = by_user().set_key_schema(Some(vec![element("user", KeyType::Hash)]));
    assert_eq!(check(other), failed("by_user: the key user"));
}

#[test]
fn key_has_both_parts() {
    let expected = [("stream", KeyType::Hash), ("item", KeyType::Range)];
    let verdict = |schema: &[KeySchemaElement]| key("mailbox_table.key", schema, &expected).verdict;
    let (stream, item) = (element("stream", KeyType::Hash), element("item", KeyType::Range));
    assert_eq!(verdict(&[stream.clone(), item]), Verdict::Ok);
    assert_eq!(verdict(std::slice::from_ref(&stream)), Verdict::Failed);
    assert_eq!(verdict(&[stream, element("other", KeyType::Range)]), Verdict::Failed);
}

#[test]
fn time_to_live_is_on_the_attribute() {
    let verdict = |status, attribute: &str| {
        let description = TimeToLiveDescription::builder().time_to_live_status(status);
        let description = description.attribute_name(attribute).build();
        ttl(ttl_rule("table.ttl", "expires_at"), Some(&description), "expires_at").verdict
    };
    assert_eq!(verdict(TimeToLiveStatus::Enabled, "expires_at"), Verdict::Ok);
    assert_eq!(verdict(TimeToLiveStatus::Enabling, "expires_at"), Verdict::Ok);
    assert_eq!(verdict(TimeToLiveStatus::Enabled, "expires"), Verdict::Warning);
    assert_eq!(verdict(TimeToLiveStatus::Disabled, "expires_at"), Verdict::Warning);
    assert_eq!(ttl(ttl_rule("table.ttl", "expires_at"), None, "expires_at").verdict, Verdict::Warning);
}

#[test]
fn capacity_is_on_demand() {
    let verdict = |mode| {
        let billing = BillingModeSummary::builder().billing_mode(mode).build();
        capacity("table.capacity", &TableDescription::builder().billing_mode_summary(billing).build()).verdict
    };
    assert_eq!(verdict(BillingMode::PayPerRequest), Verdict::Ok);
    assert_eq!(verdict(BillingMode::Provisioned), Verdict::Warning);
    assert_eq!(capacity("table.capacity", &TableDescription::builder().build()).verdict, Verdict::Warning);
}

#[test]
fn table_is_active() {
    let verdict = |of| status(exists_rule(&CONNECTIONS), "streamer_connections", of).verdict;
    assert_eq!(verdict(Some(&TableStatus::Active)), Verdict::Ok);
    assert_eq!(verdict(Some(&TableStatus::Updating)), Verdict::Ok);
    assert_eq!(verdict(Some(&TableStatus::Creating)), Verdict::Warning);
    assert_eq!(verdict(Some(&TableStatus::InaccessibleEncryptionCredentials)), Verdict::Failed);
}

#[test]
fn protection_is_preferred() {
    assert_eq!(protection("table.protection", true).verdict, Verdict::Ok);
    assert_eq!(protection("table.protection", false).verdict, Verdict::Warning);
}
