//! The functions' logs, as CloudWatch Logs has them.

use std::fs;

use anyhow::Context as _;
use aws_sdk_cloudwatchlogs::Client;

use super::{Stack, places};

/// Writes the log of each function to `target/streamer/logs/`.
///
/// # Errors
/// When a log cannot be read or written.
pub async fn save(stack: &Stack) -> anyhow::Result<()> {
    let client = Client::new(&stack.config);
    for (name, function) in &stack.deployed.functions {
        let log = read(&client, function).await.with_context(|| format!("the log of {function}"))?;
        fs::write(places::under(format!("logs/{name}.log")), log)?;
    }
    Ok(())
}

/// All that a function has logged so far.
async fn read(client: &Client, function: &str) -> anyhow::Result<String> {
    let filter = client.filter_log_events().log_group_name(format!("/aws/lambda/{function}"));
    let mut pages = filter.into_paginator().send();
    let mut log = String::new();
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            // A function that has not run has no log.
            Err(error)
                if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                break;
            }
            Err(error) => return Err(error.into()),
        };
        for message in page.events().iter().filter_map(|event| event.message()) {
            log.push_str(message.trim_end());
            log.push('\n');
        }
    }
    Ok(log)
}
