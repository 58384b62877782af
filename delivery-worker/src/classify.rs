//! Classifies API Gateway's answers: the only place that gives them a meaning.
//!
//! The status decides. The body only refines a 400: real bodies are often empty or unreadable, and the API's model
//! does not list 400:
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html>.

use streamer_gateway::PostResult;

use crate::{
    admission::breaker::Health,
    outcome::{Cause, Rejection},
};

/// The meaning of a post's result for the pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// API Gateway accepted the message.
    Delivered,
    /// API Gateway does not know the connection.
    NoConnection,
    /// API Gateway will reject every retry.
    Rejected(Rejection),
    /// A retry may succeed.
    HandBack(Cause),
}

/// Returns the meaning of a post's result.
#[must_use]
pub fn classify(result: PostResult) -> Verdict {
    match result {
        PostResult::Status { status: 200..=299, .. } => Verdict::Delivered,
        PostResult::Status { status: 410, .. } => Verdict::NoConnection,
        PostResult::Status { status: 400, message } if names_connection(&message) => Verdict::NoConnection,
        PostResult::Status { status: status @ (400 | 413), message } => {
            Verdict::Rejected(Rejection::Status(status, message))
        }
        PostResult::Status { status, .. } => Verdict::HandBack(Cause::Status(status)),
        PostResult::Timeout => Verdict::HandBack(Cause::Timeout),
        PostResult::Broken(error) => Verdict::HandBack(Cause::Connection(error)),
        PostResult::ConnectionLost(error) => Verdict::HandBack(Cause::ConnectionLost(error)),
    }
}

impl Verdict {
    /// Returns the state of the management endpoint that the verdict shows.
    #[must_use]
    pub fn health(&self) -> Health {
        match self {
            Self::Delivered | Self::NoConnection | Self::Rejected(_) => Health::Works,
            Self::HandBack(Cause::Status(429)) => Health::Throttles,
            Self::HandBack(Cause::Status(408)) => Health::Fails,
            Self::HandBack(Cause::Status(400..=499)) => Health::Refuses,
            Self::HandBack(Cause::Status(_) | Cause::Timeout | Cause::Connection(_)) => Health::Fails,
            Self::HandBack(
                Cause::ConnectionLost(_)
                | Cause::CircuitOpen(_)
                | Cause::Deadline
                | Cause::ConnectGrace
                | Cause::Away
                | Cause::Elsewhere(_)
                | Cause::Table(_)
                | Cause::Mailbox(_)
                | Cause::Unconfirmed
                | Cause::Behind
                | Cause::Panic
                | Cause::UnknownOnFifo,
            ) => Health::Unknown,
        }
    }
}

/// Returns whether the body of a 400 blames the connection id (`Invalid connectionId: …`).
fn names_connection(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("invalid connectionid") || message.contains("invalid connection id")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, message: &str) -> Verdict {
        classify(PostResult::Status { status, message: message.to_owned() })
    }

    #[test]
    fn every_2xx_is_delivered() {
        assert!((200..300).all(|status| verdict(status, "") == Verdict::Delivered));
    }

    #[test]
    fn every_410_means_no_connection() {
        for body in ["", r#"{"message":"GoneException"}"#, "<html>", "{"] {
            assert_eq!(verdict(410, body), Verdict::NoConnection, "{body}");
        }
    }

    /// A 400 means that there is no connection only if it names the connection id.
    #[test]
    fn body_refines_a_400() {
        let invalid = r#"{"message":"Invalid connectionId: abc","connectionId":"abc"}"#;
        assert_eq!(verdict(400, invalid), Verdict::NoConnection);
        for body in ["", r#"{"message":"Bad Request","connectionId":"abc"}"#] {
            let rejected = Verdict::Rejected(Rejection::Status(400, body.to_owned()));
            assert_eq!(verdict(400, body), rejected, "{body}");
        }
    }

    #[test]
    fn a_413_is_rejected() {
        let rejected = Verdict::Rejected(Rejection::Status(413, "too large".to_owned()));
        assert_eq!(verdict(413, "too large"), rejected);
    }

    #[test]
    fn every_other_status_is_handed_back() {
        let others = (100..600).filter(|status| !matches!(status, 200..300 | 400 | 410 | 413));
        for status in others {
            assert_eq!(verdict(status, "Invalid"), Verdict::HandBack(Cause::Status(status)));
        }
    }

    #[test]
    fn verdicts_show_the_endpoint_health() {
        for status in [200, 204, 400, 410, 413] {
            assert_eq!(verdict(status, "").health(), Health::Works, "{status}");
        }
        for status in [301, 302, 307, 408, 500, 502, 503, 504] {
            assert_eq!(verdict(status, "").health(), Health::Fails, "{status}");
        }
        for status in [401, 403, 404, 405, 499] {
            assert_eq!(verdict(status, "").health(), Health::Refuses, "{status}");
        }
        assert_eq!(verdict(429, "").health(), Health::Throttles);
        assert_eq!(classify(PostResult::Timeout).health(), Health::Fails);
        assert_eq!(classify(PostResult::Broken(String::new())).health(), Health::Fails);
        assert_eq!(Verdict::HandBack(Cause::Deadline).health(), Health::Unknown);
    }

    #[test]
    fn missing_answer_is_handed_back() {
        assert_eq!(classify(PostResult::Timeout), Verdict::HandBack(Cause::Timeout));
        let lost = classify(PostResult::ConnectionLost("reset".to_owned()));
        assert_eq!(lost.health(), Health::Unknown, "one lost connection is one failure");
        let broken = PostResult::Broken("reset".to_owned());
        assert_eq!(classify(broken), Verdict::HandBack(Cause::Connection("reset".to_owned())));
    }
}
