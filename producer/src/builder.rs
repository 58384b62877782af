//! The builder of messages.

use std::{
    env,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use streamer_message::{
    ClientContent, ClientError, ClientMessage, InvalidId, InvalidKeep, Keep, MessageId, Payload,
    PayloadError, Percent, PercentOutOfRange, ReceiptRequest, Request, RequestId, TenantId,
};

use crate::{
    error::MessageError,
    message::{Message, Recipients, check_keep},
    times::{Expiry, next_seq, since_epoch},
};

/// Maximum length of a trace header: enough for root, parent, sampling decision and lineage.
const TRACE_BYTES: usize = 256;

/// A message without content.
///
/// The setters accept every value. The method that sets the content returns the first error.
///
/// ```
/// use streamer_producer::{Message, MessageError};
///
/// let builder = Message::connection("L0SM9cOFvHcCIhw=").id("");
/// assert!(matches!(builder.response("hello"), Err(MessageError::Id(_))));
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until its content is set"]
pub struct MessageBuilder {
    /// `None` for an empty list of connections.
    to: Result<Option<Recipients>, InvalidId>,
    fair_queue_tenant: Result<Option<TenantId>, InvalidId>,
    id: Result<Option<MessageId>, InvalidId>,
    request: Result<Option<RequestId>, InvalidId>,
    supersedable: Option<bool>,
    expiry: Option<Expiry>,
    keep: Result<Option<Keep>, InvalidKeep>,
    receipt: bool,
    trace: Option<String>,
}

/// Options, all of which may be omitted.
impl MessageBuilder {
    pub(crate) fn new(to: Result<Option<Recipients>, InvalidId>) -> Self {
        let (fair_queue_tenant, id, request) = (Ok(None), Ok(None), Ok(None));
        let (supersedable, expiry, keep, receipt, trace) = (None, None, Ok(None), false, None);
        Self { to, fair_queue_tenant, id, request, supersedable, expiry, keep, receipt, trace }
    }

    /// Sets the tenant of the connections, for SQS fair queues: on a standard queue, SQS delays the messages of a
    /// tenant that sends very many, and not those of other tenants. The tenant is the message group, which gives no
    /// order there. Messages for a user or a tenant have the group in any case.
    ///
    /// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html>.
    pub fn fair_queue_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.fair_queue_tenant = TenantId::new(tenant).map(Some);
        self
    }

    /// Sets the id, 1 to 128 characters. A producer that may be retried, such as a Lambda, derives the id from its
    /// input, so that a retry sends the same message. The default is a new UUIDv7.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let message = Message::connection("L0SM9cOFvHcCIhw=").id("req_123:answer").response("hello")?;
    /// assert_eq!(message.id().as_str(), "req_123:answer");
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = MessageId::new(id).map(Some);
        self
    }

    /// Sets the id of the request that the message belongs to, 1 to 128 characters. The message's sequence number
    /// within the request (`seq`) is the clock in microseconds.
    pub fn request(mut self, id: impl Into<String>) -> Self {
        self.request = RequestId::new(id).map(Some);
        self
    }

    /// Sets the X-Ray trace header that travels with the message. In Lambda, the default is the header of the current
    /// invocation. The producer drops a header without a root, with characters outside printable ASCII or of more
    /// than 256 bytes, because SQS would refuse the message.
    ///
    /// Source: <https://docs.aws.amazon.com/xray/latest/devguide/xray-services-sqs.html>.
    pub fn trace(mut self, header: impl Into<String>) -> Self {
        self.trace = Some(header.into());
        self
    }

    /// Sets how long from now the message is worth delivering, in whole milliseconds, at most until the end of the
    /// year 9999. By default it never expires.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use streamer_producer::Message;
    /// let price = Message::tenant("acme").expires_in(Duration::from_secs(5)).payload(&1999)?;
    /// # drop(price);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    pub fn expires_in(mut self, duration: Duration) -> Self {
        self.expiry = Some(Expiry::In(duration));
        self
    }

    /// Sets the time until which the message is worth delivering, in whole milliseconds, at most the end of the year
    /// 9999. A time before 3 March 1973 is refused, because it is a number of seconds that was taken for milliseconds.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use streamer_producer::Message;
    /// let doors_close = SystemTime::now() + Duration::from_secs(600);
    /// let message = Message::tenant("acme").expires_at(doors_close).payload("doors close soon")?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expiry = Some(Expiry::At(time));
        self
    }

    /// Keeps the message for a user who is away: 60 s to 30 days, in whole seconds. The worker stores it in the user's
    /// stream, and each of the user's devices gets it with its next sync, in the order of the stream. A kept payload has
    /// at most 127 KiB. If the message also [expires](Self::expires_in), it is kept until the earlier of the two.
    ///
    /// The deployment needs a mailbox, and clients follow the rules for clients.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use streamer_producer::Message;
    /// let week = Duration::from_secs(7 * 24 * 3600);
    /// let message = Message::user("acme", "anna").keep(week).payload("your report is ready")?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    pub fn keep(mut self, time: Duration) -> Self {
        self.keep = Keep::new(time).map(Some);
        self
    }

    /// Asks for a receipt: the worker sends the message's outcome to the deployment's receipts queue, from which
    /// [`Receipt::decode`](crate::Receipt::decode) reads it. A message for more than 100 connections has a receipt for
    /// each 100, and a message for a large audience one for each part; [`ReceiptTally`](crate::ReceiptTally) adds them
    /// up. A kept message has another one, `acknowledged`, for each client that has handled it.
    ///
    /// A deployment without a receipts queue delivers the message and counts the receipt in the metric
    /// `ReceiptsWithoutQueue`.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let message = Message::user("acme", "anna").id("order-7").receipt().payload("shipped")?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    pub fn receipt(mut self) -> Self {
        self.receipt = true;
        self
    }

    /// Sets whether a later message of the same request makes this one worthless. The default is true for progress, and
    /// false for all other content.
    pub fn supersedable(mut self, supersedable: bool) -> Self {
        self.supersedable = Some(supersedable);
        self
    }

    /// Returns whether the message belongs to a request, valid or not.
    pub(crate) fn has_request(&self) -> bool {
        !matches!(self.request, Ok(None))
    }

    /// Generates the id now, unless one was set.
    pub(crate) fn with_id(mut self) -> Self {
        if let Ok(id) = &mut self.id {
            id.get_or_insert_with(MessageId::generate);
        }
        self
    }

    /// Removes the wishes that concern the end of a request: to keep the message, and a receipt.
    pub(crate) fn into_update(mut self) -> Self {
        (self.keep, self.receipt) = (Ok(None), false);
        self
    }

    /// Removes the id that was set.
    pub(crate) fn without_id(mut self) -> Self {
        self.id = self.id.map(|_| None);
        self
    }
}

/// Content, which ends the builder. All of these methods return a [`MessageError`] if an id is not valid, if there is
/// no recipient, or if the payload is not JSON or has more than 128 KiB.
impl MessageBuilder {
    /// Builds an `acknowledgment`: the request has arrived, and work on it has begun. `message` is for people.
    ///
    /// # Errors
    /// [`MessageError`] for a value that is not valid: correct it.
    pub fn acknowledgment(self, message: Option<&str>) -> Result<Message, MessageError> {
        self.content::<()>(ClientContent::Acknowledgment { message })
    }

    /// Builds a `progress`: 0 to 100 percent of the work are done. `message` is for people.
    ///
    /// # Errors
    /// [`MessageError`] for a value that is not valid: correct it.
    pub fn progress(
        self,
        percent: impl TryInto<Percent, Error: Into<PercentOutOfRange>>,
        message: Option<&str>,
    ) -> Result<Message, MessageError> {
        let progress = percent.try_into().map_err(Into::into)?;
        self.content::<()>(ClientContent::Progress { progress, message, details: None })
    }

    /// Builds a `response`: the answer to a request that is answered at once.
    ///
    /// # Errors
    /// [`MessageError`] for a value that is not valid: correct it.
    pub fn response<T: Serialize + ?Sized>(self, data: &T) -> Result<Message, MessageError> {
        self.content(ClientContent::Response { data })
    }

    /// Builds a `complete`: the work on a request has ended with this result.
    ///
    /// # Errors
    /// [`MessageError`] for a value that is not valid: correct it.
    pub fn complete<T: Serialize + ?Sized>(self, result: &T) -> Result<Message, MessageError> {
        self.content(ClientContent::Complete { result })
    }

    /// Builds an `error`: the request failed. `code` is for programs, and `message` for people.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let reply = Message::connection("L0SM9cOFvHcCIhw=").request("req_123");
    /// let message = reply.error("invalid_request", "there is no such report")?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    ///
    /// # Errors
    /// [`MessageError`] for a value that is not valid: correct it.
    pub fn error(self, code: &str, message: &str) -> Result<Message, MessageError> {
        self.content::<()>(ClientContent::Error { error: ClientError::new(code, message) })
    }

    /// Builds a message with any of the library's contents, including optional details.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// use streamer_producer::{ClientContent, Percent};
    ///
    /// let progress = Percent::of(7, 12);
    /// let content = ClientContent::Progress { progress, message: None, details: Some("row 7") };
    /// let message = Message::user("acme", "anna").request("req_123").content(content)?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    ///
    /// # Errors
    /// [`MessageError`] for a value that is not valid: correct it.
    pub fn content<T: Serialize>(self, content: ClientContent<'_, T>) -> Result<Message, MessageError> {
        let supersedable = matches!(content, ClientContent::Progress { .. });
        self.build(supersedable, |id, request| {
            let mut message = ClientMessage::new(id, content);
            message.request_id = request.map(|request| &request.id);
            message.seq = request.map(|request| request.seq);
            Payload::new(&message)
        })
    }

    /// Builds a message whose payload is any value, as its JSON. It holds the message's id only if the value does, and
    /// only then can clients recognise a second delivery.
    ///
    /// ```
    /// # use serde_json::json;
    /// # use streamer_producer::Message;
    /// let price = json!({ "type": "price", "cents": 1999 });
    /// let message = Message::tenant("acme").payload(&price)?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    ///
    /// # Errors
    /// [`MessageError`] for a value that is not valid: correct it.
    pub fn payload<T: Serialize + ?Sized>(self, value: &T) -> Result<Message, MessageError> {
        self.build(false, |_, _| Payload::new(value))
    }

    /// Builds a message whose payload is this JSON text, delivered unchanged.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let message = Message::tenant("acme").json(r#"{ "type": "price", "cents": 1999 }"#)?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    ///
    /// # Errors
    /// [`MessageError`] for a value that is not valid: correct it.
    pub fn json(self, text: impl Into<String>) -> Result<Message, MessageError> {
        self.build(false, |_, _| Payload::from_json(text.into()))
    }

    fn build(
        self,
        supersedable: bool,
        payload: impl FnOnce(&MessageId, Option<&Request>) -> Result<Payload<'static>, PayloadError>,
    ) -> Result<Message, MessageError> {
        let now = since_epoch(SystemTime::now());
        let id = self.id?.unwrap_or_else(MessageId::generate);
        let request = self.request?.map(|id| Request::new(id, next_seq(now)));
        let trace = self.trace.or_else(|| env::var("_X_AMZN_TRACE_ID").ok());
        let to = self.to?.ok_or(MessageError::NoRecipient)?;
        let keep = self.keep?;
        let payload = payload(&id, request.as_ref())?;
        check_keep(keep, &to, &payload)?;
        Ok(Message {
            to,
            fair_queue_tenant: self.fair_queue_tenant?,
            trace: trace.filter(|header| is_trace(header)),
            payload,
            keep,
            receipt: self.receipt.then(ReceiptRequest::default),
            id,
            request,
            supersedable: self.supersedable.unwrap_or(supersedable),
            expires_at: self.expiry.map(|expiry| expiry.millis(now)).transpose()?,
        })
    }
}

fn is_trace(header: &str) -> bool {
    header.contains("Root=")
        && header.len() <= TRACE_BYTES
        && header.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use streamer_message::limits::{KEPT_PAYLOAD_BYTES, PAYLOAD_BYTES};

    use super::*;

    fn payload(message: &Message) -> Value {
        serde_json::from_str(message.payload.as_str()).unwrap()
    }

    #[test]
    fn payload_repeats_id_request_and_seq() {
        let message = Message::connection("c").id("m").request("r").response("hello").unwrap();
        let seq = message.request.as_ref().unwrap().seq;
        assert_eq!(
            payload(&message),
            json!({"type": "response", "data": "hello", "request_id": "r", "id": "m", "seq": seq})
        );
        assert_eq!((message.id().as_str(), message.supersedable, message.expires_at), ("m", false, None));
    }

    #[test]
    fn only_progress_is_supersedable_by_default() {
        let build = || Message::connection("c").request("r");
        assert!(build().progress(40, None).unwrap().supersedable);
        assert!(!build().supersedable(false).progress(40, None).unwrap().supersedable);
        assert!(!build().acknowledgment(None).unwrap().supersedable);
        assert!(build().supersedable(true).payload(&1).unwrap().supersedable);
    }

    #[test]
    fn build_reports_invalid_values() {
        let no_ids: [&str; 0] = [];
        let error = |builder: MessageBuilder| builder.payload(&1).unwrap_err();
        assert!(matches!(error(Message::connections(no_ids)), MessageError::NoRecipient));
        assert!(matches!(error(Message::connection("")), MessageError::Id(_)));
        assert!(matches!(error(Message::connection("c").id("")), MessageError::Id(_)));
        assert!(matches!(error(Message::connection("c").request("")), MessageError::Id(_)));
        assert!(matches!(error(Message::connection("c").fair_queue_tenant("")), MessageError::Id(_)));
        assert!(matches!(error(Message::user("acme", "")), MessageError::Id(_)));
        assert!(matches!(error(Message::tenant("")), MessageError::Id(_)));
        assert!(matches!(Message::connection("c").progress(101, None), Err(MessageError::Percent(_))));
        let large = "x".repeat(PAYLOAD_BYTES);
        assert!(matches!(Message::connection("c").payload(&large), Err(MessageError::Payload(_))));
        assert!(matches!(Message::connection("c").json("{"), Err(MessageError::Payload(_))));
    }

    #[test]
    fn invalid_trace_headers_are_dropped() {
        let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let traced = |header: String| Message::connection("c").trace(header).payload(&1).unwrap().trace;
        assert_eq!(traced(header.into()).as_deref(), Some(header));
        for other in
            [String::new(), "1-5759e988".into(), "Root=ä".into(), format!("Root={}", "1".repeat(256))]
        {
            assert_eq!(traced(other), None);
        }
    }

    #[test]
    fn only_messages_for_users_are_kept() {
        let hour = Duration::from_secs(3600);
        let kept = Message::user("acme", "anna").keep(hour).payload(&1).unwrap();
        assert_eq!(kept.keep.unwrap().duration(), hour);
        for other in [Message::connection("c"), Message::tenant("acme")] {
            assert!(matches!(other.keep(hour).payload(&1), Err(MessageError::KeepAudience)));
        }
        let short = Message::user("acme", "anna").keep(Duration::from_secs(59)).payload(&1);
        assert!(matches!(short, Err(MessageError::Keep(_))));
    }

    #[test]
    fn kept_payload_has_at_most_127_kib() {
        let kept = |bytes: usize| {
            let builder = Message::user("acme", "anna").keep(Duration::from_secs(60));
            builder.payload(&"x".repeat(bytes - 2))
        };
        assert!(kept(KEPT_PAYLOAD_BYTES).is_ok());
        let error = kept(KEPT_PAYLOAD_BYTES + 1).unwrap_err();
        assert!(matches!(error, MessageError::KeptPayload { bytes: 130_049 }), "{error}");
    }
}
