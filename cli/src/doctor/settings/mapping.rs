//! The event source mapping from the outbound queue to the worker.

use aws_sdk_lambda::{
    Client,
    types::{EventSourceMappingConfiguration as Mapping, FunctionResponseType},
};
use serde_json::json;

use streamer_message::sqs::is_arn_of;

use super::{Rule, Unread, read};
use crate::doctor::{Check, Subject};

/// Maximum number of pages of mappings, 100 each.
const MAX_PAGES: usize = 10;

/// A provisioned poller makes up to 10 concurrent invocations.
const INVOCATIONS_OF_A_POLLER: i32 = 10;

/// API Gateway's requests per second of an account, in newer Regions and in the others.
///
/// Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html>.
const SMALLER_QUOTA: u64 = 2_500;
const QUOTA: u64 = 10_000;

/// The mappings that concern the deployment.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    queue_url: String,
    /// Those of the worker, from any source.
    worker: Vec<Mapping>,
    /// Those of the outbound queue, to any function. Empty if the queue's ARN is unknown.
    queue: Vec<Mapping>,
}

impl Mappings {
    /// Reads the worker's mappings, and those of the outbound queue if its ARN is known.
    pub(super) async fn read(
        lambda: &Client,
        subject: &Subject,
        queue_arn: Option<&str>,
    ) -> Result<Self, Unread> {
        let worker = &subject.worker().name;
        let queue = match queue_arn {
            Some(arn) => list(lambda, None, Some(arn)).await?,
            None => Vec::new(),
        };
        let queue_url = subject.variable("QUEUE_URL").unwrap_or_default().to_owned();
        Ok(Self { queue_url, worker: list(lambda, Some(worker), None).await?, queue })
    }

    /// Returns the mapping from the outbound queue to the worker.
    pub(super) fn of_worker(&self) -> Option<&Mapping> {
        self.worker.iter().find(|mapping| self.reads_queue(mapping))
    }

    fn reads_queue(&self, mapping: &Mapping) -> bool {
        mapping.event_source_arn().is_some_and(|arn| is_arn_of(arn, &self.queue_url))
    }
}

/// Lists the mappings of a function, or those of a source.
async fn list(lambda: &Client, function: Option<&str>, source: Option<&str>) -> Result<Vec<Mapping>, Unread> {
    let resource = format!("the mappings of {}", function.or(source).unwrap_or_default());
    let (mut mappings, mut marker) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let list = lambda.list_event_source_mappings().set_marker(marker);
        let list = list.set_function_name(function.map(str::to_owned));
        let list = list.set_event_source_arn(source.map(str::to_owned));
        let page = read("lambda:ListEventSourceMappings", &resource, list.send()).await?;
        mappings.extend(page.event_source_mappings.unwrap_or_default());
        marker = page.next_marker.filter(|marker| !marker.is_empty());
        if marker.is_none() {
            break;
        }
    }
    Ok(mappings)
}

/// Returns the maximum number of concurrent invocations that a mapping makes, if it is limited.
fn concurrency(mapping: &Mapping) -> Option<i32> {
    let pollers = mapping.provisioned_poller_config().and_then(|pollers| pollers.maximum_pollers());
    let maximum = mapping.scaling_config().and_then(|scaling| scaling.maximum_concurrency());
    pollers.map(|pollers| pollers * INVOCATIONS_OF_A_POLLER).or(maximum)
}

/// A limit on concurrent invocations: that of a mapping, or a function's reserved concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// It could not be read.
    Unknown,
    /// No limit is set.
    Unlimited,
    /// At most so many.
    UpTo(i32),
}

impl Limit {
    /// Returns the limit that is set, if one is.
    pub(super) fn of(limit: Option<i32>) -> Self {
        limit.map_or(Self::Unlimited, Self::UpTo)
    }

    /// Returns the limit of a mapping, if there is one that could be read.
    pub(super) fn of_mapping(mapping: Option<&Mapping>) -> Self {
        mapping.map_or(Self::Unknown, |mapping| Self::of(concurrency(mapping)))
    }
}

/// Returns the checks of the mapping.
pub(super) fn checks(subject: &Subject, mappings: Result<&Mappings, &Unread>) -> Vec<Check> {
    let mappings = match mappings {
        Ok(mappings) => mappings,
        Err(unread) => {
            let expected = "one mapping from the outbound queue to the worker";
            return vec![Check::skipped("mapping.exists", expected, unread.reason("event source mapping"))];
        }
    };
    let exists = exists(mappings, &subject.worker().name);
    let Some(mapping) = mappings.of_worker() else { return vec![exists] };
    let is_fifo = subject.variable("QUEUE_URL").is_some_and(|url| url.ends_with(".fifo"));
    let posts = subject.variable("MAX_POSTS_PER_SECOND");
    let posts = posts.map(|posts| posts.parse().unwrap_or_default());
    vec![
        exists,
        enabled(mapping),
        responses(mapping),
        batch(mapping, is_fifo),
        limited(mapping),
        rate(concurrency(mapping), posts, subject.is_local),
        filter(mapping),
        parts(&mappings.worker, subject.variable("PARTS_QUEUE_URL")),
    ]
}

/// Without the mapping, the parts of large audiences wait on their queue.
fn parts(mappings: &[Mapping], queue_url: Option<&str>) -> Check {
    let rule = Rule::new(
        "mapping.parts",
        "one enabled mapping from the queue in PARTS_QUEUE_URL, to the worker, with ReportBatchItemFailures",
        "create the mapping (`terraform apply` does): messages for large audiences wait on the parts queue",
    );
    let Some(queue_url) = queue_url else { return rule.skipped("the worker has no parts queue") };
    let is_of_parts =
        |mapping: &&Mapping| mapping.event_source_arn().is_some_and(|arn| is_arn_of(arn, queue_url));
    let of_parts: Vec<_> = mappings.iter().filter(is_of_parts).collect();
    let [mapping] = of_parts.as_slice() else { return rule.failed(format!("mappings: {}", of_parts.len())) };
    let state = mapping.state().unwrap_or("unknown");
    let reports = mapping.function_response_types().contains(&FunctionResponseType::ReportBatchItemFailures);
    match reports {
        true => rule.require(!matches!(state, "Disabled" | "Disabling" | "Deleting"), state),
        false => rule.failed("no ReportBatchItemFailures"),
    }
}

/// Another consumer of the outbound queue takes messages that no client then receives.
fn exists(mappings: &Mappings, worker: &str) -> Check {
    let rule = Rule::new(
        "mapping.exists",
        "one mapping from the outbound queue, to the worker",
        "create the mapping of the worker, and remove others from the queue (`terraform apply` creates it): messages wait, or \
         another consumer takes them",
    );
    let is_worker = |mapping: &&Mapping| mapping.function_arn().is_some_and(|arn| function_of(arn) == worker);
    if let Some(other) = mappings.queue.iter().find(|mapping| !is_worker(mapping)) {
        return rule.failed(format!("also {}", other.function_arn().unwrap_or("an unknown function")));
    }
    let own: Vec<_> = mappings.worker.iter().filter(|mapping| mappings.reads_queue(mapping)).collect();
    match own.as_slice() {
        [one] => rule.ok(one.uuid().unwrap_or("1 mapping")),
        [] => {
            let sources: Vec<_> = mappings.worker.iter().filter_map(Mapping::event_source_arn).collect();
            let sources = if sources.is_empty() { "nothing".to_owned() } else { sources.join(", ") };
            rule.failed(format!("the worker reads from {sources}"))
        }
        several => rule.failed(format!("mappings: {}", several.len())),
    }
}

/// Returns the name of the function in an ARN, which may end with a version or an alias.
fn function_of(arn: &str) -> &str {
    let name = arn.split_once(":function:").map_or(arn, |(_, name)| name);
    name.split(':').next().unwrap_or(name)
}

fn enabled(mapping: &Mapping) -> Check {
    let remedy = "enable it: `aws lambda update-event-source-mapping --enabled --uuid …`, or wait until the change has ended: \
                  until then, messages wait";
    let rule = Rule::new("mapping.enabled", "Enabled", remedy);
    let state = mapping.state().unwrap_or("unknown");
    match state {
        "Enabled" => rule.ok(state),
        "Creating" | "Enabling" | "Updating" => rule.warning(state),
        _ => rule.failed(state),
    }
}

/// Without the response type, Lambda ignores which messages failed, and deletes all of a batch.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>.
fn responses(mapping: &Mapping) -> Check {
    let remedy = "set function_response_types of the mapping to [\"ReportBatchItemFailures\"]: messages that the worker returns \
                  are lost";
    let rule = Rule::new("mapping.responses", "ReportBatchItemFailures", remedy);
    let types = mapping.function_response_types();
    let holds = types.contains(&FunctionResponseType::ReportBatchItemFailures);
    rule.require(holds, if holds { "ReportBatchItemFailures" } else { "no partial batch responses" })
}

/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html>.
fn batch(mapping: &Mapping, is_fifo: bool) -> Check {
    let size = mapping.batch_size().unwrap_or_default();
    let window = mapping.maximum_batching_window_in_seconds().unwrap_or_default();
    let expected = if is_fifo {
        "up to 10 messages without a window, as FIFO queues have it"
    } else {
        "up to 10 messages, or up to 10000 with a window of at least 1 s"
    };
    let remedy =
        "change `batch_size` or `batching_window_seconds` in Terraform: Lambda does not fill the batches";
    let holds = if is_fifo { size <= 10 && window == 0 } else { size <= 10 || window >= 1 };
    Rule::new("mapping.batch", expected, remedy).require(holds, format!("{size} messages, window {window} s"))
}

/// A throttled invocation counts as a receive of its messages.
fn limited(mapping: &Mapping) -> Check {
    let remedy = "set the mapping's maximum concurrency (`requests_per_second` in Terraform does): throttled invocations make dead \
                  letters of messages, and other functions of the account are throttled";
    let rule = Rule::new("mapping.concurrency", "a maximum concurrency, or provisioned pollers", remedy);
    match concurrency(mapping) {
        Some(concurrency) => rule
            .ok(format!("{concurrency} invocations at once"))
            .with_values(json!({ "invocations": concurrency })),
        None => rule.failed("no maximum"),
    }
}

/// The worker's requests per second to API Gateway: concurrent invocations, times the posts of each.
fn rate(concurrency: Option<i32>, posts: Option<u64>, is_local: bool) -> Check {
    let rule = Rule::new(
        "mapping.rate",
        format!("at most {SMALLER_QUOTA} requests per second, the quota of an account in newer Regions"),
        format!(
            "lower `requests_per_second` in Terraform, unless API Gateway's quota \"Throttle rate\" (L-8A5B8E43 in Service Quotas) \
             of the account in this Region is larger; it is {QUOTA} in most"
        ),
    );
    match (concurrency, posts) {
        _ if is_local => rule.skipped("the stack on this machine has no quota"),
        (Some(concurrency), Some(posts)) => {
            let rate = u64::from(concurrency.unsigned_abs()) * posts;
            let seen = format!("{concurrency} invocations with {posts} posts per second each: {rate}");
            rule.prefer(rate <= SMALLER_QUOTA, seen).with_values(json!({ "requests_per_second": rate }))
        }
        (_, None) => rule.warning("unlimited: the worker has no MAX_POSTS_PER_SECOND"),
        (None, _) => rule.warning("unlimited: the mapping has no maximum concurrency"),
    }
}

/// Lambda deletes messages that do not match.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs-filtering.html>.
fn filter(mapping: &Mapping) -> Check {
    let remedy = "remove the mapping's filter criteria: Lambda deletes messages that match none of them";
    let rule = Rule::new("mapping.filter", "no filter", remedy);
    let filters = mapping.filter_criteria().map_or(0, |criteria| criteria.filters().len());
    rule.require(
        filters == 0,
        if filters == 0 { "no filter".to_owned() } else { format!("filters: {filters}") },
    )
}

#[cfg(test)]
mod tests {
    use aws_sdk_lambda::types::{
        Filter, FilterCriteria, ProvisionedPollerConfig, ScalingConfig,
        builders::EventSourceMappingConfigurationBuilder as Builder,
    };

    use super::*;
    use crate::doctor::Verdict;

    const QUEUE: &str = "arn:aws:sqs:eu-central-1:123456789012:streamer-outbound";
    const FUNCTION: &str = "arn:aws:lambda:eu-central-1:123456789012:function:streamer-delivery";

    fn mapping() -> Builder {
        Mapping::builder().event_source_arn(QUEUE).function_arn(FUNCTION)
    }

    fn of(worker: Vec<Mapping>, queue: Vec<Mapping>) -> Check {
        let queue_url = "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-outbound".to_owned();
        exists(&Mappings { queue_url, worker, queue }, "streamer-delivery")
    }

    #[test]
    fn parts_queue_needs_its_mapping() {
        let url = "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-parts";
        let of_parts = || mapping().event_source_arn(QUEUE.replace("outbound", "parts")).state("Enabled");
        let reports = || of_parts().function_response_types(FunctionResponseType::ReportBatchItemFailures);
        let verdict = |mappings: Vec<Mapping>, url| parts(&mappings, url).verdict;
        assert_eq!(verdict(Vec::new(), None), Verdict::Skipped);
        assert_eq!(verdict(vec![mapping().build(), reports().build()], Some(url)), Verdict::Ok);
        assert_eq!(verdict(vec![mapping().build()], Some(url)), Verdict::Failed);
        assert_eq!(verdict(vec![of_parts().build()], Some(url)), Verdict::Failed);
        assert_eq!(verdict(vec![reports().state("Disabled").build()], Some(url)), Verdict::Failed);
    }

    #[test]
    fn one_mapping_of_the_worker() {
        let one = || mapping().build();
        assert_eq!(of(vec![one()], vec![one()]).verdict, Verdict::Ok);
        let alias = mapping().function_arn(format!("{FUNCTION}:live")).build();
        assert_eq!(of(vec![one()], vec![alias]).verdict, Verdict::Ok);
        assert_eq!(of(vec![one(), one()], vec![one(), one()]).seen, "mappings: 2");
        assert_eq!(of(Vec::new(), Vec::new()).seen, "the worker reads from nothing");
        let other = mapping().event_source_arn(format!("{QUEUE}-2")).build();
        let check = of(vec![other], Vec::new());
        assert_eq!(
            (check.verdict, check.seen.as_str()),
            (
                Verdict::Failed,
                "the worker reads from arn:aws:sqs:eu-central-1:123456789012:streamer-outbound-2"
            )
        );
        let thief = mapping().function_arn(FUNCTION.replace("delivery", "other")).build();
        assert!(of(vec![one()], vec![one(), thief]).seen.ends_with("streamer-other"));
    }

    #[test]
    fn disabled_mapping_fails() {
        let verdict = |state: &str| enabled(&mapping().state(state).build()).verdict;
        assert_eq!(verdict("Enabled"), Verdict::Ok);
        assert_eq!(verdict("Updating"), Verdict::Warning);
        assert_eq!(verdict("Disabled"), Verdict::Failed);
    }

    #[test]
    fn partial_batch_responses_are_required() {
        let partial = FunctionResponseType::ReportBatchItemFailures;
        assert_eq!(responses(&mapping().function_response_types(partial).build()).verdict, Verdict::Ok);
        assert_eq!(responses(&mapping().build()).verdict, Verdict::Failed);
    }

    #[test]
    fn large_batches_need_a_window() {
        let verdict = |size, window, is_fifo| {
            batch(&mapping().batch_size(size).maximum_batching_window_in_seconds(window).build(), is_fifo)
                .verdict
        };
        assert_eq!(verdict(10, 0, false), Verdict::Ok);
        assert_eq!(verdict(11, 0, false), Verdict::Failed);
        assert_eq!(verdict(10_000, 1, false), Verdict::Ok);
        assert_eq!(verdict(10, 0, true), Verdict::Ok);
        assert_eq!(verdict(10, 1, true), Verdict::Failed);
        assert_eq!(verdict(11, 0, true), Verdict::Failed);
    }

    #[test]
    fn concurrency_is_limited() {
        let scaling = ScalingConfig::builder().maximum_concurrency(2).build();
        let limit = mapping().scaling_config(scaling).build();
        assert_eq!((limited(&limit).verdict, concurrency(&limit)), (Verdict::Ok, Some(2)));
        let pollers = ProvisionedPollerConfig::builder().minimum_pollers(2).maximum_pollers(3).build();
        assert_eq!(concurrency(&mapping().provisioned_poller_config(pollers).build()), Some(30));
        assert_eq!(limited(&mapping().build()).verdict, Verdict::Failed);
    }

    #[test]
    fn rate_stays_below_the_smaller_quota() {
        assert_eq!(rate(Some(5), Some(500), false).verdict, Verdict::Ok);
        assert_eq!(rate(Some(5), Some(501), false).verdict, Verdict::Warning);
        assert_eq!(rate(None, Some(1), false).verdict, Verdict::Warning);
        assert_eq!(rate(Some(2), None, false).verdict, Verdict::Warning);
        assert_eq!(rate(Some(2), None, true).verdict, Verdict::Skipped);
    }

    #[test]
    fn filters_delete_messages() {
        assert_eq!(filter(&mapping().build()).verdict, Verdict::Ok);
        let criteria = FilterCriteria::builder().filters(Filter::builder().pattern("{}").build()).build();
        assert_eq!(filter(&mapping().filter_criteria(criteria).build()).verdict, Verdict::Failed);
    }
}
