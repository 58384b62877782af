//! Credentials that permit all actions but one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
        http_client_fn,
    },
    orchestrator::{HttpRequest, HttpResponse},
};
use aws_smithy_types::{DateTime, body::SdkBody, date_time::Format};

/// Paths of services that do not name the action in a header, and the actions as IAM names them.
const PATHS: [(&str, &str); 4] = [
    ("/account-settings", "lambda:GetAccountSettings"),
    ("/concurrency", "lambda:GetFunctionConcurrency"),
    ("/event-source-mappings", "lambda:ListEventSourceMappings"),
    ("/v2/apis", "apigateway:GET"),
];

/// The actions that calls needed.
#[derive(Debug, Clone, Default)]
pub(super) struct Needed(Arc<Mutex<BTreeSet<String>>>);

/// Denies one action, and forwards the calls of others.
#[derive(Debug)]
struct Denying {
    denied: Option<&'static str>,
    needed: Needed,
    inner: SharedHttpConnector,
}

impl Needed {
    /// Returns the actions so far.
    pub(super) fn actions(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Returns a configuration without the permission for an action, if one is given. It notes the actions that calls need.
pub(super) fn without(config: &SdkConfig, denied: Option<&'static str>, needed: &Needed) -> SdkConfig {
    let inner: SharedHttpClient = config.http_client().unwrap();
    let needed = needed.clone();
    let client = http_client_fn(move |settings, components| {
        let (inner, needed) = (inner.http_connector(settings, components), needed.clone());
        SharedHttpConnector::new(Denying { denied, needed, inner })
    });
    config.clone().into_builder().http_client(client).build()
}

impl HttpConnector for Denying {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let action = action(&request);
        self.needed.0.lock().unwrap_or_else(PoisonError::into_inner).insert(action.clone());
        if self.denied == Some(action.as_str()) {
            return HttpConnectorFuture::ready(Ok(denial()));
        }
        self.inner.call(request)
    }
}

/// Returns the action that a request needs, as IAM names it.
fn action(request: &HttpRequest) -> String {
    if let Some((service, operation)) =
        request.headers().get("x-amz-target").and_then(|it| it.split_once('.'))
    {
        let service = if service == "AmazonSQS" { "sqs" } else { "dynamodb" };
        return format!("{service}:{operation}");
    }
    let path = request.uri().split('?').next().unwrap_or_default().trim_end_matches('/');
    let known =
        PATHS.iter().find(|(part, _)| path.ends_with(part) || part.starts_with("/v2") && path.contains(part));
    known.map_or_else(|| path.to_owned(), |(_, action)| (*action).to_owned())
}

/// Returns the answer to a call that is not permitted, with its time, as AWS gives it.
fn denial() -> HttpResponse {
    let body = SdkBody::from(r#"{"__type":"AccessDeniedException","message":"not authorized"}"#);
    let mut response = HttpResponse::new(403_u16.try_into().unwrap(), body);
    let date = DateTime::from(SystemTime::now()).fmt(Format::HttpDate).unwrap();
    response.headers_mut().insert("date", date);
    response.headers_mut().insert("x-amzn-errortype", "AccessDeniedException");
    response
}
