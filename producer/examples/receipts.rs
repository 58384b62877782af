//! A consumer of receipts: the Lambda behind the receipts queue. It writes the outcome of each message into a DynamoDB
//! table.
//!
//! Receipts arrive at least once and in any order, so of two receipts about the same thing, the better outcome stays.
//! The table has the hash key `id` and the range key `about`, both strings, and the TTL attribute `expires_at`. The event
//! source mapping reports batch item failures.

use std::collections::HashMap;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use aws_sdk_dynamodb::{
    Client,
    error::DisplayErrorContext,
    types::AttributeValue::{self, N, S},
};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::json;
use streamer_environment::aws;
use streamer_producer::{Receipt, ReceiptOutcome};

/// Seconds for which the table keeps an outcome: longer than a receipt may stay on its queue.
const KEPT_SECONDS: u64 = 30 * 24 * 3600;

/// The condition of a write: the table has no outcome yet, or a worse one.
const IS_BETTER: &str = "attribute_not_exists(id) OR #rank > :rank";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let table = std::env::var("OUTCOMES_TABLE")?;
    let client = Client::new(&aws::loader().load().await);
    run(service_fn(async |event| Ok::<_, Error>(consume(&client, &table, event).await))).await
}

/// Stores the receipts, and reports those that SQS has to deliver again.
async fn consume(client: &Client, table: &str, event: LambdaEvent<SqsEvent>) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    for record in event.payload.records {
        let sqs_message_id = record.message_id.unwrap_or_default();
        let stored = match Receipt::decode(&record.body.unwrap_or_default()) {
            Ok(receipt) => store(client, table, &receipt).await,
            // It fails each time, until the redrive policy of the queue moves it to a dead-letter queue.
            Err(error) => Err(error.into()),
        };
        if let Err(error) = stored {
            let message = error.to_string();
            println!("{}", json!({ "level": "ERROR", "sqs_message_id": sqs_message_id, "message": message }));
            response.add_failure(sqs_message_id);
        }
    }
    response
}

/// Writes the receipt, unless the table has an outcome about the same thing that is at least as good.
async fn store(client: &Client, table: &str, receipt: &Receipt) -> Result<(), Error> {
    let put = client
        .put_item()
        .table_name(table)
        .set_item(Some(item(receipt)?))
        .condition_expression(IS_BETTER)
        .expression_attribute_names("#rank", "rank")
        .expression_attribute_values(":rank", rank(receipt.outcome));
    match put.send().await {
        Ok(_) => Ok(()),
        Err(error)
            if error
                .as_service_error()
                .is_some_and(|error| error.is_conditional_check_failed_exception()) =>
        {
            Ok(())
        }
        Err(error) => Err(DisplayErrorContext(error).to_string().into()),
    }
}

fn item(receipt: &Receipt) -> Result<HashMap<String, AttributeValue>, Error> {
    let about = json!([receipt.part, receipt.connection]).to_string();
    let fields = [
        ("id", S(receipt.id.to_string())),
        ("about", S(about)),
        ("outcome", S(receipt.outcome.to_string())),
        ("rank", rank(receipt.outcome)),
        ("receipt", S(serde_json::to_string(receipt)?)),
        ("expires_at", N((receipt.at / 1000 + KEPT_SECONDS).to_string())),
    ];
    Ok(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

/// Returns the number of outcomes that are better.
fn rank(outcome: ReceiptOutcome) -> AttributeValue {
    N(ReceiptOutcome::ALL.iter().filter(|other| other.is_better_than(outcome)).count().to_string())
}
