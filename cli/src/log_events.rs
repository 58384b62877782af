//! Reads a function's log group.

use aws_sdk_cloudwatchlogs::{Client, types::FilteredLogEvent};

use crate::aws::Call;

/// Returns a function's log events since a time in milliseconds since the epoch, optionally only those that match a
/// filter pattern. A function that was never invoked has no log group, and so no events.
pub(crate) async fn read(
    client: &Client,
    function: &str,
    since: i64,
    pattern: Option<&str>,
) -> anyhow::Result<Vec<FilteredLogEvent>> {
    read_pages(client, function, since, pattern, usize::MAX).await
}

/// Like [`read`], with a maximum number of pages.
pub(crate) async fn read_pages(
    client: &Client,
    function: &str,
    since: i64,
    pattern: Option<&str>,
    max_pages: usize,
) -> anyhow::Result<Vec<FilteredLogEvent>> {
    let filter = client.filter_log_events().log_group_name(format!("/aws/lambda/{function}"));
    let filter = filter.start_time(since).set_filter_pattern(pattern.map(str::to_owned));
    let mut pages = filter.into_paginator().send();
    let mut events = Vec::new();
    for _ in 0..max_pages {
        let Some(page) = pages.next().await else { break };
        match page {
            Ok(page) => events.extend(page.events.unwrap_or_default()),
            Err(error)
                if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                break;
            }
            Err(error) => {
                let resource = format!("log group /aws/lambda/{function}");
                return Err(Call { action: "logs:FilterLogEvents", resource: &resource }.failed(&error));
            }
        }
    }
    Ok(events)
}
