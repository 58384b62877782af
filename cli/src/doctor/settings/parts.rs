//! The parts queue, and the event source mapping from it to the worker.

use aws_sdk_lambda::types::{EventSourceMappingConfiguration as Mapping, FunctionResponseType};
use aws_sdk_sqs::Client;

use super::{
    Rule, Unread,
    mapping::{Mappings, concurrency},
    queue::{Attributes, of_messages, read_variable},
};
use crate::doctor::{Check, Subject};

const VARIABLE: &str = "PARTS_QUEUE_URL";

/// The names of the parts queue's checks, in the order of [`of_messages`].
const NAMES: [&str; 7] = [
    "parts.visibility",
    "parts.retention",
    "parts.redrive",
    "parts.max_receive_count",
    "parts.size",
    "parts.encryption",
    "parts.policy",
];

/// Reads the parts queue. `None` if the worker has none.
pub(super) async fn read(sqs: &Client, subject: &Subject) -> Option<Result<Attributes, Unread>> {
    subject.variable(VARIABLE)?;
    Some(read_variable(sqs, subject, VARIABLE).await)
}

/// Returns the checks of the parts queue and of its mapping.
pub(super) fn checks(
    subject: &Subject,
    queue: Option<&Result<Attributes, Unread>>,
    mappings: Result<&Mappings, &Unread>,
) -> Vec<Check> {
    let rule = Rule::new(
        "parts.exists",
        "the queue that the worker's PARTS_QUEUE_URL names",
        "create the queue again (`terraform apply` does): messages for large audiences are handed back until it exists",
    );
    let (Some(queue), Some(url)) = (queue, subject.variable(VARIABLE)) else {
        return vec![rule.skipped("parts are on the outbound queue")];
    };
    let of_parts: Result<Vec<_>, _> = mappings.map(|mappings| mappings.of_queue(url).collect());
    let mut checks = match queue {
        Err(unread) => vec![unread.check(rule, &format!("queue {url}"))],
        Ok(queue) => {
            let mapping = of_parts.as_ref().ok().and_then(|mappings| mappings.first().copied());
            let mut checks = vec![rule.ok(url)];
            checks.extend(of_messages(NAMES, subject, queue, mapping));
            checks
        }
    };
    checks.push(match of_parts {
        Ok(of_parts) => mapping(&of_parts),
        Err(unread) => mapping_rule().skipped(unread.reason("event source mapping")),
    });
    checks
}

fn mapping_rule() -> Rule {
    Rule::new(
        "parts.mapping",
        "one enabled mapping from the parts queue to the worker, with a maximum concurrency, ReportBatchItemFailures and no filter",
        "create or correct the mapping (`terraform apply` does): parts wait on their queue, or are lost",
    )
}

/// The rules of the outbound queue's mapping in one check.
fn mapping(mappings: &[&Mapping]) -> Check {
    let rule = mapping_rule();
    let [mapping] = mappings else { return rule.failed(format!("mappings: {}", mappings.len())) };
    let reports = mapping.function_response_types().contains(&FunctionResponseType::ReportBatchItemFailures);
    let filters = mapping.filter_criteria().map_or(0, |criteria| criteria.filters().len());
    let state = mapping.state().unwrap_or("unknown");
    match (reports, filters, concurrency(mapping)) {
        (false, ..) => rule.failed("no ReportBatchItemFailures"),
        (true, 1.., _) => rule.failed(format!("filters: {filters}")),
        (true, 0, None) => rule.failed("no maximum concurrency"),
        (true, 0, Some(invocations)) => match state {
            "Enabled" => rule.ok(format!("{invocations} invocations at once")),
            "Creating" | "Enabling" | "Updating" => rule.warning(state),
            _ => rule.failed(state),
        },
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_lambda::types::{
        Filter, FilterCriteria, ScalingConfig, builders::EventSourceMappingConfigurationBuilder as Builder,
    };

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn mapping_is_enabled_limited_and_whole() {
        let reports =
            || Mapping::builder().function_response_types(FunctionResponseType::ReportBatchItemFailures);
        let limit = || ScalingConfig::builder().maximum_concurrency(2).build();
        let of = |mapping: Builder| {
            let check = super::mapping(&[&mapping.build()]);
            (check.verdict, check.seen)
        };
        let good = || reports().scaling_config(limit());
        assert_eq!(of(good().state("Enabled")), (Verdict::Ok, "2 invocations at once".to_owned()));
        assert_eq!(of(good().state("Updating")), (Verdict::Warning, "Updating".to_owned()));
        assert_eq!(of(good().state("Disabled")), (Verdict::Failed, "Disabled".to_owned()));
        assert_eq!(of(reports().state("Enabled")).1, "no maximum concurrency");
        let silent = Mapping::builder().scaling_config(limit()).state("Enabled");
        assert_eq!(of(silent), (Verdict::Failed, "no ReportBatchItemFailures".to_owned()));
        let criteria = FilterCriteria::builder().filters(Filter::builder().pattern("{}").build()).build();
        assert_eq!(of(good().state("Enabled").filter_criteria(criteria)).1, "filters: 1");
        let (one, other) = (good().build(), good().build());
        assert_eq!(super::mapping(&[]).seen, "mappings: 0");
        assert_eq!(super::mapping(&[&one, &other]).seen, "mappings: 2");
    }
}
