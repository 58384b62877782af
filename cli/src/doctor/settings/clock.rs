//! This machine's clock, compared with the time at which AWS answers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_lambda::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
};
use serde_json::json;

use super::{Rule, read};
use crate::doctor::Check;

/// Offset from which AWS refuses signatures.
///
/// Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>.
const REFUSED: Duration = Duration::from_secs(300);

/// Offset from which a clock is not synchronized.
const TOLERATED: Duration = Duration::from_secs(60);

/// Precision of the header `Date`.
const PRECISION: Duration = Duration::from_secs(1);

/// Keeps the header `Date` of the latest answer, which failed calls have, too.
#[derive(Debug, Clone, Default)]
struct ReadDate(Arc<Mutex<Option<String>>>);

impl Intercept for ReadDate {
    fn name(&self) -> &'static str {
        "ReadDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").map(str::to_owned);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}

/// Compares the clock `now` with the header `Date` of an answer of Lambda. The call needs no permission: an answer that
/// denies it has the header, too.
pub async fn check(config: &SdkConfig, now: impl Fn() -> SystemTime) -> Check {
    let date = ReadDate::default();
    let call = Client::new(config).get_account_settings().customize().interceptor(date.clone());
    let sent = now();
    let answer = read("lambda:GetAccountSettings", "the account", call.send()).await;
    let received = now();
    let date = date.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let date = date.and_then(|date| DateTime::from_str(&date, DateTimeFormat::HttpDate).ok());
    match (date.and_then(|date| SystemTime::try_from(date).ok()), answer) {
        (Some(date), _) => compare(sent, received, date),
        (None, Err(unread)) => rule().skipped(unread.reason("answer")),
        (None, Ok(_)) => rule().skipped("the answer has no Date"),
    }
}

fn rule() -> Rule {
    Rule::new(
        "clock.offset",
        format!("at most {} s between this machine's clock and AWS's", TOLERATED.as_secs()),
        format!(
            "synchronize this machine's clock (NTP): AWS refuses calls of a clock that is off by {} s",
            REFUSED.as_secs()
        ),
    )
}

/// Compares the time of an answer with the times at which its request was sent and the answer received.
fn compare(sent: SystemTime, received: SystemTime, date: SystemTime) -> Check {
    // The header has whole seconds, so the answer was written up to a second later.
    let behind = date.duration_since(received).unwrap_or_default();
    let ahead = sent.duration_since(date).unwrap_or_default().saturating_sub(PRECISION);
    let (offset, side) = if behind > ahead { (behind, "behind") } else { (ahead, "ahead of") };
    let seen = match offset.as_secs() {
        0 => "less than 1 s".to_owned(),
        seconds => format!("{seconds} s {side} AWS"),
    };
    let check = match offset {
        offset if offset > REFUSED => rule().failed(seen),
        offset => rule().prefer(offset <= TOLERATED, seen),
    };
    let signed = offset.as_secs() as i64 * if side == "behind" { -1 } else { 1 };
    check.with_values(json!({ "offset_s": signed }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const SENT: Duration = Duration::from_secs(1_000_000);

    /// A request that takes 2 s, by a clock with this offset from the time of the answer.
    fn offset(ahead: i64) -> Check {
        let sent = SystemTime::UNIX_EPOCH + SENT;
        let date = SENT.as_secs() as i64 - ahead;
        compare(
            sent,
            sent + Duration::from_secs(2),
            SystemTime::UNIX_EPOCH + Duration::from_secs(date as u64),
        )
    }

    #[test]
    fn round_trip_and_precision_are_tolerated() {
        for ahead in [-2, 0, 1] {
            let check = offset(ahead);
            assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Ok, "less than 1 s"), "{ahead}");
        }
    }

    #[test]
    fn offset_of_a_minute_is_a_warning() {
        assert_eq!(offset(61).verdict, Verdict::Ok);
        let check = offset(62);
        assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Warning, "61 s ahead of AWS"));
        assert_eq!(offset(-62).verdict, Verdict::Ok);
        let check = offset(-63);
        assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Warning, "61 s behind AWS"));
        assert_eq!(check.values, Some(json!({ "offset_s": -61 })));
    }

    #[test]
    fn offset_of_five_minutes_fails() {
        assert_eq!(offset(301).verdict, Verdict::Warning);
        assert_eq!(offset(302).verdict, Verdict::Failed);
        assert_eq!(offset(-303).verdict, Verdict::Failed);
        assert!(offset(302).remedy.is_some_and(|remedy| remedy.contains("NTP")));
    }
}
