//! Rules of the API.

use serde_json::json;

use super::*;

fn route(key: &str) -> Route {
    Route::builder().route_key(key).target("integrations/1").build()
}

#[test]
fn address_is_read_from_default_endpoints() {
    let of = |endpoint| Address::of(endpoint).map(|address| (address.api, address.stage));
    let expected = Some(("a1b2c3d4e5", "production"));
    assert_eq!(of("https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production"), expected);
    assert_eq!(of("https://a1b2c3d4e5.execute-api.cn-north-1.amazonaws.com.cn/production/"), expected);
    assert_eq!(of("http://127.0.0.1:4566/_aws/execute-api/a1b2c3d4e5/production"), expected);
    for custom in
        ["https://ws.example.com", "https://ws.example.com/production", "https://a.execute-api.b", ""]
    {
        assert_eq!(of(custom), None, "{custom}");
    }
}

#[test]
fn api_speaks_websocket_at_its_default_endpoint() {
    let verdict = |protocol, disabled| {
        let api = GetApiOutput::builder().protocol_type(protocol).disable_execute_api_endpoint(disabled);
        exists(Rule::new("api.exists", "", ""), &api.build(), "a1b2c3d4e5").verdict
    };
    assert_eq!(verdict(ProtocolType::Websocket, false), Verdict::Ok);
    assert_eq!(verdict(ProtocolType::Http, false), Verdict::Failed);
    assert_eq!(verdict(ProtocolType::Websocket, true), Verdict::Failed);
}

#[test]
fn mailbox_needs_a_selection_by_type_or_action() {
    for good in ["$request.body.type", "$request.body.action", "${request.body.type}"] {
        assert_eq!(selection(Some(good), true).verdict, Verdict::Ok, "{good}");
    }
    assert_eq!(selection(Some("$request.body.kind"), true).verdict, Verdict::Failed);
    assert_eq!(selection(None, true).verdict, Verdict::Failed);
    assert_eq!(selection(Some("$request.body.kind"), false).verdict, Verdict::Skipped);
}

#[test]
fn missing_routes_are_named() {
    let wanted = [("$connect", Verdict::Failed), ("$disconnect", Verdict::Warning)];
    let of = |routes: &[Route]| {
        let check = compare_routes(routes, &wanted, &BTreeMap::new());
        (check.verdict, check.seen)
    };
    assert_eq!(
        of(&[route("$connect"), route("$disconnect")]),
        (Verdict::Ok, "$connect, $disconnect".to_owned())
    );
    assert_eq!(of(&[route("$connect")]), (Verdict::Warning, "no $disconnect".to_owned()));
    assert_eq!(of(&[route("$disconnect")]), (Verdict::Failed, "no $connect".to_owned()));
    let empty = Route::builder().route_key("$connect").build();
    assert_eq!(of(&[empty, route("$disconnect")]).1, "no $connect");
}

#[test]
fn mock_route_has_a_response() {
    let mocks = [("streamer.ping".to_owned(), json!({}))].into();
    let verdict = |routes: &[Route]| compare_routes(routes, &[], &mocks).verdict;
    let answered =
        Route::builder().route_key("streamer.ping").route_response_selection_expression("$default");
    assert_eq!(verdict(&[answered.build()]), Verdict::Ok);
    assert_eq!(verdict(&[route("streamer.ping")]), Verdict::Failed);
    assert_eq!(verdict(&[]), Verdict::Failed);
}

#[test]
fn throttling_leaves_the_deployment_its_rate() {
    let settings = |rate| RouteSettings::builder().throttling_rate_limit(rate).build();
    let verdict = |rate| {
        let stage = GetStageOutput::builder().default_route_settings(settings(rate)).build();
        throttling(&stage, 1000).verdict
    };
    assert_eq!(verdict(1000.0), Verdict::Ok);
    assert_eq!(verdict(999.0), Verdict::Warning);
    assert_eq!(verdict(0.0), Verdict::Failed);
    assert_eq!(throttling(&GetStageOutput::builder().build(), 1000).verdict, Verdict::Ok);
    let own = GetStageOutput::builder().route_settings("$connect", settings(0.0)).build();
    assert_eq!(throttling(&own, 1000).seen, "0 per second for $connect");
}

#[test]
fn execution_logs_are_a_warning() {
    let verdict = |level, traces| {
        let settings = RouteSettings::builder().logging_level(level).data_trace_enabled(traces).build();
        logging(&GetStageOutput::builder().default_route_settings(settings).build()).verdict
    };
    assert_eq!(verdict(LoggingLevel::Off, false), Verdict::Ok);
    assert_eq!(verdict(LoggingLevel::Info, false), Verdict::Warning);
    assert_eq!(verdict(LoggingLevel::Off, true), Verdict::Warning);
    assert_eq!(logging(&GetStageOutput::builder().build()).verdict, Verdict::Ok);
}
