//! The numbers of the simulated AWS, each with its source: a document of AWS, a public measurement, a measurement of
//! this project, or an assumption.

use std::time::Duration;

/// Quantiles of the time from a message's arrival on a standard queue to its invocation, in milliseconds: 16, 34 and
/// 105 at p50, p90 and p99.
///
/// Source: a public measurement of SQS to Lambda, of which only these three quantiles are known (a FIFO queue has 28,
/// 61 and 645). The ends are assumed; between the points, the logarithm is linear.
pub const QUEUE_LATENCY: [(f64, f64); 5] =
    [(0.0, 8.0), (0.5, 16.0), (0.9, 34.0), (0.99, 105.0), (1.0, 250.0)];

/// Latency of a call to SQS. Assumed.
pub const SQS_CALL: Duration = Duration::from_millis(8);

/// Latency of a query of DynamoDB.
///
/// Source: "single-digit millisecond performance", <https://aws.amazon.com/dynamodb/>; the middle is assumed.
pub const QUERY: Duration = Duration::from_millis(5);

/// Latency of a write of DynamoDB.
///
/// Source: the same; the middle is assumed.
pub const WRITE: Duration = Duration::from_millis(5);

/// CPU time of a query in the worker: most of a user's message, which was measured as 337 µs. Other calls of
/// DynamoDB cost the same: a kept message, which makes five, was measured as 1 448 µs.
pub const QUERY_CPU: Duration = Duration::from_micros(300);

/// Median of a post's latency. Assumed, in the middle of the 5 to 10 ms that the benches assume, too.
pub const POST_MEDIAN: f64 = 7.0;

/// Standard deviation of the logarithm of a post's latency: a p99 of 40 ms. Assumed.
pub const POST_SIGMA: f64 = 0.75;

/// Latency of a 429. Assumed: a refused post needs no client.
pub const THROTTLE_MILLIS: f64 = 3.0;

/// CPU time of a post over TLS with a session token, as production has it. Measured on the release worker.
pub const POST_CPU: Duration = Duration::from_nanos(13_400);

/// CPU time of an invocation beside its posts. Measured: 10 messages × 1 connection take 211 µs of CPU time, and
/// 10 × 100 take 7.3 ms (`docs/explanation/performance.md`).
pub const EVENT_CPU: Duration = Duration::from_micros(139);

/// Time until a new execution environment runs the function: about 100 ms, assumed, and 2 ms for the worker's start,
/// measured.
pub const COLD_START: Duration = Duration::from_millis(102);

/// Memory at which a function has one vCPU, in MB. Less memory gives a proportional share.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>.
pub const MEMORY_OF_A_CPU: f64 = 1769.0;

/// Concurrent batches of a mapping at first, and the growth in a minute while messages wait.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html>.
pub const POLLERS: (f64, f64) = (5.0, 300.0);

/// Concurrent batches of a mapping without a maximum concurrency.
///
/// Source: the same.
pub const MAX_POLLERS: usize = 1250;

/// Concurrent invocations of a provisioned poller, and the growth in a minute.
///
/// Source: the same.
pub const PROVISIONED: (f64, f64) = (10.0, 1000.0);

/// The queue's visibility timeout, as the module sets it (`infra/stack.json`).
pub const VISIBILITY: Duration = Duration::from_secs(180);

/// The function's timeout, as the module sets it.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Requests a second of an account to all its APIs in a Region, and its burst.
///
/// Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html>.
pub const ACCOUNT: (f64, f64) = (10_000.0, 5000.0);

/// No quota, as of the scripted gateway and the emulator.
pub const NO_QUOTA: (f64, f64) = (f64::MAX, f64::MAX);

/// New connections a second of an account in a Region.
///
/// Source:
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
pub const NEW_CONNECTIONS: u64 = 500;

/// Write units a second of one partition key.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html>.
pub const KEY_WRITES: u64 = 1000;

/// Shares of posts that fail, of connections whose clients are slow, and of connections that are gone. Assumed.
pub const FAULTS: Faults = Faults { failing: 0.001, slow: 0.001, gone: 0.002 };

/// Shares of posts and connections that don't work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// Posts that API Gateway answers with 500.
    pub failing: f64,
    /// Connections of which every second post is answered with 429, since the client's buffer is full.
    pub slow: f64,
    /// Connections that have closed without a trace, whose posts are answered with 410.
    pub gone: f64,
}

/// Faults of a world in which everything works.
pub const NO_FAULTS: Faults = Faults { failing: 0.0, slow: 0.0, gone: 0.0 };

/// Latencies of an emulator of AWS in place of the model's own, for a comparison with it. `scenario/emulator` measures
/// them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Emulator {
    /// From the arrival of a message on a queue until the worker has it.
    pub dispatch: Duration,
    /// From the end of an invocation until the next may begin.
    pub rest: Duration,
    /// Latency of a post.
    pub post: Duration,
    /// Time between the answers to two posts of many, which the emulator takes one after another.
    pub post_of_many: Duration,
    /// Latency of a query.
    pub query: Duration,
    /// Latency of a call to a queue.
    pub send: Duration,
    /// Concurrent batches of a mapping.
    pub pollers: usize,
}

/// Settings of a deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// Memory of the worker in MB.
    pub memory_mb: u32,
    /// Largest batch.
    pub batch: usize,
    /// Time for which an incomplete batch waits.
    pub window: Duration,
    /// Maximum concurrency of the mapping.
    pub concurrency: usize,
    /// Maximum concurrency of the parts queue's mapping. `None` if parts are on the outbound queue.
    pub parts_concurrency: Option<usize>,
    /// `MAX_POSTS_PER_SECOND` of an execution environment.
    pub pace: Option<u32>,
    /// Provisioned pollers, if any.
    pub provisioned: Option<usize>,
    /// Requests a second and burst that API Gateway allows.
    pub account: (f64, f64),
    /// Posts and connections that don't work.
    pub faults: Faults,
    /// Whether all execution environments share one breaker, one limiter and one pace: the ideal, which no Lambda has.
    pub shares: bool,
    /// Seconds between which API Gateway fails.
    pub outage: (u64, u64),
    /// The share of the users who are away, if there is a mailbox.
    pub away: Option<f64>,
    /// A fixed latency of posts in place of the distribution, and the CPU time of a post, for a comparison with a stub.
    pub stub: Option<(Duration, Duration)>,
    /// The latencies of an emulator, for a comparison with it.
    pub emulator: Option<Emulator>,
}

impl Setup {
    /// The module's defaults: 1 000 requests a second (`infra/stack.json`, `infra/mapping.tf`).
    pub const DEFAULT: Self = Self {
        memory_mb: 512,
        batch: 10,
        window: Duration::ZERO,
        concurrency: 2,
        parts_concurrency: None,
        pace: Some(500),
        provisioned: None,
        account: ACCOUNT,
        faults: FAULTS,
        shares: false,
        outage: (0, 0),
        away: None,
        stub: None,
        emulator: None,
    };

    /// The module with `requests_per_second = 10000`, the account's whole quota.
    pub const WHOLE_ACCOUNT: Self = Self { concurrency: 20, ..Self::DEFAULT };

    /// Returns the share of a CPU that an environment has.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        f64::from(self.memory_mb) / MEMORY_OF_A_CPU
    }

    /// Returns the environments that may run at once.
    #[must_use]
    pub fn environments(&self) -> usize {
        self.concurrency + self.parts_concurrency.unwrap_or(0)
    }
}
