//! The bill of a run, at the prices of us-east-1.

use crate::report::Report;

/// Prices in dollars of us-east-1, without free tiers and discounts. Compared in 2026-11 with copies of the pages
/// cloudchipr.com/blog/aws-lambda-pricing, cloudburn.io/blog/amazon-sqs-pricing,
/// awsforengineers.com/blog/aws-api-gateway-pricing-explained and airbyte.com/data-engineering-resources/dynamodb-pricing.
pub mod price {
    /// A million invocations. Source: <https://aws.amazon.com/lambda/pricing/>.
    pub const INVOCATIONS: f64 = 0.20;
    /// A GB-second on arm64, the module's default. Source: the same.
    pub const GB_SECOND: f64 = 0.000_013_333_4;
    /// A million requests to a standard queue. Source: <https://aws.amazon.com/sqs/pricing/>.
    pub const QUEUE_REQUESTS: f64 = 0.40;
    /// A million messages of a WebSocket API of up to 32 KB. Source: <https://aws.amazon.com/api-gateway/pricing/>.
    pub const MESSAGES: f64 = 1.00;
    /// A million read units on demand: 4 KB each, read consistently. Source: <https://aws.amazon.com/dynamodb/pricing/on-demand/>.
    pub const READS: f64 = 0.125;
    /// A million write units on demand: 1 KB each. Source: the same.
    pub const WRITES: f64 = 0.625;
}

/// Read units of a row of an index: about 200 bytes, of which half a unit reads 4 KB.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/capacity-unit-calculations.html>.
const UNITS_OF_A_ROW: f64 = 0.025;

/// Write units of a row and its two indexes.
pub const UNITS_OF_A_WRITE: f64 = 3.0;

/// A bill in dollars.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Bill {
    /// Invocations and their time.
    pub lambda: f64,
    /// Requests to the queues.
    pub queue: f64,
    /// Posts. API Gateway bills delivered messages; a refused post is free.
    pub messages: f64,
    /// Reads and writes of the tables.
    pub table: f64,
}

impl Bill {
    /// Returns the bill of a run.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let million = |number: u64, price: f64| number as f64 / 1e6 * price;
        // A producer's message is a request of its own, as without batches.
        let requests = report.queue_requests + report.sent_by_producers;
        Self {
            lambda: million(report.invocations, price::INVOCATIONS) + report.gb_seconds * price::GB_SECOND,
            queue: million(requests, price::QUEUE_REQUESTS),
            messages: million(report.delivered + report.duplicates, price::MESSAGES),
            table: report.rows_read as f64 * UNITS_OF_A_ROW / 1e6 * price::READS
                + million(report.gone, price::WRITES) * UNITS_OF_A_WRITE
                + million(report.kept.reads, price::READS)
                + million(report.kept.writes, price::WRITES),
        }
    }

    /// Returns the sum.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.lambda + self.queue + self.messages + self.table
    }
}
