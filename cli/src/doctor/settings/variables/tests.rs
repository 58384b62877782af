//! Rules of the environment variables.

use aws_sdk_lambda::{
    operation::get_function_configuration::GetFunctionConfigurationOutput, types::EnvironmentResponse,
};

use super::*;

const QUEUE: &str = "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-outbound";
const LETTERS: &str = "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-dead-letters";
const ENDPOINT: &str = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production";

fn function(short: &str, variables: &[(&str, &str)]) -> (String, Function) {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let environment = EnvironmentResponse::builder().set_variables(Some(variables)).build();
    let configuration = GetFunctionConfigurationOutput::builder().environment(environment).build();
    (short.to_owned(), Function { name: format!("streamer-{short}"), configuration })
}

fn worker_with(variables: &[(&str, &str)]) -> (String, Function) {
    let base = [("QUEUE_URL", QUEUE), ("DEAD_LETTER_QUEUE_URL", LETTERS), ("WEBSOCKET_ENDPOINT", ENDPOINT)];
    function("delivery", &[&base, variables].concat())
}

fn of(variables: &[(&str, &str)]) -> Check {
    valid(&[worker_with(variables)].into())
}

#[test]
fn required_variables_are_named() {
    assert_eq!(of(&[]).verdict, Verdict::Ok);
    let check = valid(&[function("delivery", &[("QUEUE_URL", QUEUE), ("WEBSOCKET_ENDPOINT", "")])].into());
    let seen = "delivery: DEAD_LETTER_QUEUE_URL is missing; delivery: WEBSOCKET_ENDPOINT is missing";
    assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Failed, seen));
    let check = valid(&[function("mailbox", &[("WEBSOCKET_ENDPOINT", ENDPOINT)])].into());
    assert!(check.seen.contains("mailbox: MAILBOX_TABLE is missing"), "{check:?}");
}

#[test]
fn numbers_have_limits() {
    for (name, range) in &NUMBERS {
        for good in [range.start(), range.end()] {
            let check = valid(&[function("disconnect", &[(name, &good.to_string())])].into());
            assert_eq!(check.verdict, Verdict::Ok, "{name}={good}");
        }
        let above = (range.end() + 1).to_string();
        for bad in [above.as_str(), "-1", "1.5", "soon"] {
            let check = valid(&[function("disconnect", &[(name, bad)])].into());
            assert_eq!(check.verdict, Verdict::Failed, "{name}={bad}");
            assert!(!check.seen.contains("soon"), "{check:?}");
        }
    }
}

#[test]
fn urls_are_parsed() {
    let seen = of(&[("RECEIPTS_QUEUE_URL", "streamer-receipts")]).seen;
    assert_eq!(seen, "delivery: RECEIPTS_QUEUE_URL is not a URL");
}

#[test]
fn max_age_covers_both_graces() {
    assert_eq!(of(&[("MAX_AGE_SECONDS", "30")]).verdict, Verdict::Ok);
    assert_eq!(of(&[("MAX_AGE_SECONDS", "29")]).verdict, Verdict::Failed);
    let graces = [("AWAY_GRACE_SECONDS", "0"), ("CONNECT_GRACE_SECONDS", "29")];
    assert_eq!(of(&[&graces[..], &[("MAX_AGE_SECONDS", "29")]].concat()).verdict, Verdict::Ok);
    assert_eq!(of(&[&graces[..], &[("MAX_AGE_SECONDS", "28")]].concat()).verdict, Verdict::Failed);
}

#[test]
fn queues_have_the_same_kind() {
    let fifo = [("QUEUE_URL", "https://sqs.example.com/1/q.fifo"), ("WEBSOCKET_ENDPOINT", ENDPOINT)];
    let verdict = |letters| {
        valid(&[function("delivery", &[&fifo[..], &[("DEAD_LETTER_QUEUE_URL", letters)]].concat())].into())
            .verdict
    };
    assert_eq!(verdict("https://sqs.example.com/1/d.fifo"), Verdict::Ok);
    assert_eq!(verdict("https://sqs.example.com/1/d"), Verdict::Failed);
}

#[test]
fn tokens_have_one_source_of_keys() {
    let verdict = |names: &[&str]| {
        let variables: Vec<_> = names.iter().map(|name| (*name, "value")).collect();
        valid(&[function("connect", &variables)].into()).verdict
    };
    assert_eq!(verdict(&["JWT_PUBLIC_KEY"]), Verdict::Ok);
    assert_eq!(verdict(&["JWT_PUBLIC_KEY", "JWT_ISSUER"]), Verdict::Ok);
    assert_eq!(verdict(&["JWT_JWKS_URL", "JWT_AUDIENCE"]), Verdict::Ok);
    assert_eq!(verdict(&["JWT_ISSUER", "JWT_AUDIENCE"]), Verdict::Ok);
    assert_eq!(verdict(&["JWT_ISSUER"]), Verdict::Failed);
    assert_eq!(verdict(&["JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_AUDIENCE"]), Verdict::Failed);
    assert_eq!(verdict(&[]), Verdict::Failed);
}

#[test]
fn authorizer_excludes_token_variables() {
    let of = |variables: &[(&str, &str)]| {
        valid(&[function("connect", &[&[("IDENTITY_SOURCE", "authorizer")], variables].concat())].into())
            .verdict
    };
    assert_eq!(of(&[]), Verdict::Ok);
    assert_eq!(of(&[("JWT_PUBLIC_KEY", "key")]), Verdict::Failed);
}

#[test]
fn differing_values_are_listed() {
    let functions = |generation| {
        let mailbox = [("MAILBOX_TABLE", "m"), ("MAILBOX_GENERATION", generation)];
        [worker_with(&[("MAILBOX_TABLE", "m")]), function("mailbox", &mailbox)].into()
    };
    assert_eq!(shared(&functions("0")).verdict, Verdict::Ok, "the default is 0");
    let check = shared(&functions("1"));
    let seen = "MAILBOX_GENERATION: delivery has 0, mailbox has 1";
    assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Failed, seen));
    let stage = shared(&[worker_with(&[("STAGE", "a")]), function("disconnect", &[])].into());
    assert_eq!(stage.verdict, Verdict::Failed, "the tables differ, too");
    assert!(stage.seen.contains("CONNECTIONS_TABLE: delivery has none, disconnect has streamer_connections"));
}

#[test]
fn differing_graces_are_a_warning() {
    let functions = |grace| {
        let worker = worker_with(&[("CONNECTIONS_TABLE", TABLE), ("CONNECT_GRACE_SECONDS", grace)]);
        [worker, function("connect", &[])].into()
    };
    assert_eq!(shared(&functions("5")).verdict, Verdict::Ok);
    assert_eq!(shared(&functions("6")).verdict, Verdict::Warning);
}

#[test]
fn endpoints_agree_or_are_aliases() {
    let slash = format!("{ENDPOINT}/");
    let verdict = |aliases: &[(&str, &str)], endpoint| {
        let worker = worker_with(&[aliases, &[("CONNECTIONS_TABLE", TABLE)]].concat());
        shared(&[worker, function("connect", &[("WEBSOCKET_ENDPOINT", endpoint)])].into()).verdict
    };
    assert_eq!(verdict(&[], ENDPOINT), Verdict::Ok);
    assert_eq!(verdict(&[], &slash), Verdict::Ok);
    assert_eq!(verdict(&[], ""), Verdict::Ok, "connect takes the event's");
    let other = "https://ws.example.com";
    assert_eq!(verdict(&[], other), Verdict::Failed);
    assert_eq!(verdict(&[("WEBSOCKET_ENDPOINT_ALIASES", other)], other), Verdict::Ok);
}

#[test]
fn payload_limit_is_bounded_and_shared() {
    for (value, verdict) in [("8191", Verdict::Failed), ("8192", Verdict::Ok), ("131073", Verdict::Failed)] {
        assert_eq!(of(&[("MAX_PAYLOAD_BYTES", value)]).verdict, verdict, "{value}");
    }
    for (value, verdict) in [("131072", Verdict::Ok), ("32768", Verdict::Warning)] {
        let worker = worker_with(&[("MAX_PAYLOAD_BYTES", value)]);
        let mailbox = function("mailbox", &[("WEBSOCKET_ENDPOINT", ENDPOINT)]);
        assert_eq!(shared(&[worker, mailbox].into()).verdict, verdict, "{value}");
    }
}

#[test]
fn worker_reads_every_shard_of_connect() {
    let of = |connect: &[(&str, &str)], delivery: &[(&str, &str)]| {
        shards(&[worker_with(delivery), function("connect", connect)].into()).verdict
    };
    let count = |count| [("TENANT_SHARDS", count)];
    assert_eq!(of(&[], &[]), Verdict::Ok);
    assert_eq!(of(&count("64"), &count("64")), Verdict::Ok);
    assert_eq!(of(&[], &count("64")), Verdict::Ok, "rows of a former number may be there");
    assert_eq!(of(&count("9"), &[]), Verdict::Failed, "the worker reads 8");
    assert_eq!(of(&[], &count("7")), Verdict::Failed, "connect writes to 8");
    assert_eq!(
        shards(&[worker_with(&count("7"))].into()).verdict,
        Verdict::Ok,
        "there is no function connect"
    );
    for (value, verdict) in [("256", Verdict::Ok), ("0", Verdict::Failed), ("257", Verdict::Failed)] {
        assert_eq!(super::valid(&[worker_with(&count(value))].into()).verdict, verdict, "{value}");
    }
}
