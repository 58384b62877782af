//! Messages, from whom they are for to what they say.

use std::{
    env, fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use streamer_message::{
    ClientContent, ClientError, ClientMessage, ConnectionId, InvalidId, MessageId, Payload, PayloadError,
    Percent, PercentOutOfRange, Request, RequestId, TenantId, UserId,
};

/// The longest trace header that is passed on: room for root, parent, sampling decision and lineage.
const TRACE_BYTES: usize = 256;

/// A message that can be sent: valid, and within every limit.
#[derive(Clone)]
#[must_use = "a message arrives when it is sent"]
pub struct Message {
    pub(crate) to: Recipients,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) id: MessageId,
    pub(crate) payload: Payload<'static>,
    pub(crate) request: Option<Request>,
    pub(crate) supersedable: bool,
    pub(crate) expires_at: Option<u64>,
    pub(crate) trace: Option<String>,
}

/// Whom a message is for.
#[derive(Debug, Clone)]
pub(crate) enum Recipients {
    Connections(Vec<ConnectionId>),
    User { tenant: TenantId, user: UserId },
    Tenant(TenantId),
}

/// A message that does not yet say anything. What is wrong with it is told by the method that ends it.
#[derive(Debug, Clone)]
#[must_use]
pub struct MessageBuilder {
    /// None: for nobody.
    to: Result<Option<Recipients>, InvalidId>,
    tenant: Result<Option<TenantId>, InvalidId>,
    id: Result<Option<MessageId>, InvalidId>,
    request: Result<Option<RequestId>, InvalidId>,
    supersedable: Option<bool>,
    expires_in: Option<Duration>,
    trace: Option<String>,
}

/// Why there can be no such message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// An id that is empty or too long.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// No recipient.
    #[error("the message is for nobody: name at least one connection")]
    NoRecipient,
    /// Progress of no request.
    #[error("progress is that of a request: name it with `request`")]
    NoRequest,
    /// Progress over 100 percent.
    #[error(transparent)]
    Percent(#[from] PercentOutOfRange),
    /// A payload that is no JSON, or too large.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

impl Message {
    /// A message for one connection.
    pub fn connection(id: impl Into<String>) -> MessageBuilder {
        Self::connections([id])
    }

    /// A message for some connections, any number of them: 100 share a message of the queue, and on a FIFO queue
    /// each has its own.
    pub fn connections<I: Into<String>>(ids: impl IntoIterator<Item = I>) -> MessageBuilder {
        let ids: Result<Vec<_>, _> = ids.into_iter().map(ConnectionId::new).collect();
        MessageBuilder::new(ids.map(|ids| (!ids.is_empty()).then_some(Recipients::Connections(ids))))
    }

    /// A message for whatever connections a user has when it is delivered, or makes within the worker's away
    /// grace, 30 s by default: for work that may outlive a socket, which API Gateway ends after 2 hours.
    ///
    /// Source: "Connection duration for WebSocket API" in
    /// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
    pub fn user(tenant: impl Into<String>, user: impl Into<String>) -> MessageBuilder {
        let user = TenantId::new(tenant).and_then(|tenant| {
            let user = UserId::new(user)?;
            Ok(Some(Recipients::User { tenant, user }))
        });
        MessageBuilder::new(user)
    }

    /// A message for all connections of a tenant. A FIFO queue takes none.
    pub fn tenant(tenant: impl Into<String>) -> MessageBuilder {
        MessageBuilder::new(TenantId::new(tenant).map(|tenant| Some(Recipients::Tenant(tenant))))
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.id
    }
}

/// Without the payload, which may be confidential.
impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, id, request, .. } = self;
        let mut message = formatter.debug_struct("Message");
        message.field("to", to).field("id", id).field("request", request).finish_non_exhaustive()
    }
}

impl MessageBuilder {
    fn new(to: Result<Option<Recipients>, InvalidId>) -> Self {
        let (tenant, id, request) = (Ok(None), Ok(None), Ok(None));
        Self { to, tenant, id, request, supersedable: None, expires_in: None, trace: None }
    }

    /// Names the tenant of the connections. On a standard queue it is the message group, which gives no order:
    /// SQS delays one tenant's flood, and not the messages of the others. A user's and a tenant's messages have it
    /// anyway.
    ///
    /// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html>.
    pub fn of_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = TenantId::new(tenant).map(Some);
        self
    }

    /// Sets the id, 1 to 128 characters. A producer that may be retried, such as a Lambda, derives it from
    /// its input, so that its second try is the same message. The default is a new UUIDv7.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = MessageId::new(id).map(Some);
        self
    }

    /// Says which request the message belongs to, 1 to 128 characters. Its place among that request's
    /// messages (`seq`) is the clock in microseconds.
    pub fn request(mut self, id: impl Into<String>) -> Self {
        self.request = RequestId::new(id).map(Some);
        self
    }

    /// Sets X-Ray's trace header, which travels with the message. In Lambda the default is that of the invocation
    /// that makes the message. What has no root, or not the characters of one, is left out: SQS would refuse the message for it.
    ///
    /// Source: <https://docs.aws.amazon.com/xray/latest/devguide/xray-services-sqs.html>.
    pub fn trace(mut self, header: impl Into<String>) -> Self {
        self.trace = Some(header.into());
        self
    }

    /// Sets how long the message is worth delivering, to the millisecond. The default is for ever.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires_in = Some(time);
        self
    }

    /// Says whether a later message of the same request makes this one worthless. The default is true for
    /// progress and false for everything else.
    pub fn supersedable(mut self, supersedable: bool) -> Self {
        self.supersedable = Some(supersedable);
        self
    }

    /// `acknowledgment`: the request has arrived and is worked on.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn acknowledgment(self, message: Option<&str>) -> Result<Message, MessageError> {
        self.content::<()>(ClientContent::Acknowledgment { message })
    }

    /// `progress`: 0 to 100 percent of the work are done.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn progress(
        self,
        percent: impl TryInto<Percent, Error: Into<PercentOutOfRange>>,
        message: Option<&str>,
    ) -> Result<Message, MessageError> {
        let progress = percent.try_into().map_err(Into::into)?;
        self.content::<()>(ClientContent::Progress { progress, message, details: None })
    }

    /// `response`: the answer to a request that is answered at once.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn response<T: Serialize + ?Sized>(self, data: &T) -> Result<Message, MessageError> {
        self.content(ClientContent::Response { data })
    }

    /// `complete`: the end of a request that was worked on.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn complete<T: Serialize + ?Sized>(self, result: &T) -> Result<Message, MessageError> {
        self.content(ClientContent::Complete { result })
    }

    /// `error`: the end of a request that failed; a code for programs and a message for people.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn error(self, code: &str, message: &str) -> Result<Message, MessageError> {
        self.content::<()>(ClientContent::Error { error: ClientError { code, message, details: None } })
    }

    /// The request, and whether there is one.
    pub(crate) fn is_of_a_request(&self) -> bool {
        !matches!(self.request, Ok(None))
    }

    /// The id, made now where none was set.
    pub(crate) fn with_an_id(mut self) -> Self {
        if let Ok(id) = &mut self.id {
            id.get_or_insert_with(MessageId::generate);
        }
        self
    }

    /// Without the id that was set.
    pub(crate) fn without_an_id(mut self) -> Self {
        self.id = self.id.map(|_| None);
        self
    }

    /// A message of the library's, with everything it may hold.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn content<T: Serialize>(self, content: ClientContent<'_, T>) -> Result<Message, MessageError> {
        let supersedable = matches!(content, ClientContent::Progress { .. });
        self.end(supersedable, |id, request| {
            let (request_id, seq) = (request.map(|request| &request.id), request.map(|request| request.seq));
            Payload::new(&ClientMessage { content, request_id, id, seq })
        })
    }

    /// Any value, as its JSON. It holds the message's id only where the value does, and only then can clients
    /// tell a second delivery.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn payload<T: Serialize + ?Sized>(self, value: &T) -> Result<Message, MessageError> {
        self.end(false, |_, _| Payload::new(value))
    }

    /// JSON text, delivered as it is.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn json(self, text: impl Into<String>) -> Result<Message, MessageError> {
        self.end(false, |_, _| Payload::from_json(text.into()))
    }

    fn end(
        self,
        supersedable: bool,
        payload: impl FnOnce(&MessageId, Option<&Request>) -> Result<Payload<'static>, PayloadError>,
    ) -> Result<Message, MessageError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let id = self.id?.unwrap_or_else(MessageId::generate);
        let request = self.request?.map(|id| Request { id, seq: next_seq(now) });
        let trace = self.trace.or_else(|| env::var("_X_AMZN_TRACE_ID").ok());
        Ok(Message {
            to: self.to?.ok_or(MessageError::NoRecipient)?,
            tenant: self.tenant?,
            trace: trace.filter(|header| is_trace(header)),
            payload: payload(&id, request.as_ref())?,
            id,
            request,
            supersedable: self.supersedable.unwrap_or(supersedable),
            expires_at: self.expires_in.map(|time| now.saturating_add(time)).map(as_millis),
        })
    }
}

fn is_trace(header: &str) -> bool {
    header.contains("Root=")
        && header.len() <= TRACE_BYTES
        && header.bytes().all(|byte| byte.is_ascii_graphic())
}

fn as_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The clock in microseconds, but always more than the last time in this process: the clock may stand still
/// between two calls, or be set back.
fn next_seq(now: Duration) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let next = |last: u64| now.max(last.saturating_add(1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    next(last.unwrap_or_else(|last| last))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn payload(message: &Message) -> Value {
        serde_json::from_str(message.payload.as_str()).unwrap()
    }

    #[test]
    fn the_payload_repeats_the_envelopes_id_request_and_seq() {
        let message = Message::connection("c").id("m").request("r").response("hello").unwrap();
        let seq = message.request.as_ref().unwrap().seq;
        assert_eq!(
            payload(&message),
            json!({"type": "response", "data": "hello", "request_id": "r", "id": "m", "seq": seq})
        );
        assert_eq!((message.id().as_str(), message.supersedable, message.expires_at), ("m", false, None));
    }

    #[test]
    fn only_progress_is_supersedable_unless_told_otherwise() {
        let build = || Message::connection("c").request("r");
        assert!(build().progress(40, None).unwrap().supersedable);
        assert!(!build().supersedable(false).progress(40, None).unwrap().supersedable);
        assert!(!build().acknowledgment(None).unwrap().supersedable);
        assert!(build().supersedable(true).payload(&1).unwrap().supersedable);
    }

    #[test]
    fn seq_increases_strictly_whatever_the_clock_does() {
        let clock = Duration::from_secs(4_000_000_000);
        let seqs = [clock, clock, clock / 2, clock + Duration::from_micros(1)].map(next_seq);
        assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
    }

    #[test]
    fn every_fault_is_told_by_the_method_that_ends_the_message() {
        let none: [&str; 0] = [];
        let fault = |builder: MessageBuilder| builder.payload(&1).unwrap_err();
        assert!(matches!(fault(Message::connections(none)), MessageError::NoRecipient));
        assert!(matches!(fault(Message::connection("")), MessageError::Id(_)));
        assert!(matches!(fault(Message::connection("c").id("")), MessageError::Id(_)));
        assert!(matches!(fault(Message::connection("c").request("")), MessageError::Id(_)));
        assert!(matches!(fault(Message::connection("c").of_tenant("")), MessageError::Id(_)));
        assert!(matches!(fault(Message::user("acme", "")), MessageError::Id(_)));
        assert!(matches!(fault(Message::tenant("")), MessageError::Id(_)));
        assert!(matches!(Message::connection("c").progress(101, None), Err(MessageError::Percent(_))));
        let large = "x".repeat(streamer_message::limits::PAYLOAD_BYTES);
        assert!(matches!(Message::connection("c").payload(&large), Err(MessageError::Payload(_))));
        assert!(matches!(Message::connection("c").json("{"), Err(MessageError::Payload(_))));
    }

    #[test]
    fn a_trace_header_travels_where_it_is_one() {
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
    fn expiry_counts_from_now_in_milliseconds() {
        let message = Message::connection("c").expires_in(Duration::from_secs(60)).payload(&1).unwrap();
        let now = as_millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap());
        assert!((now + 59_000..=now + 60_000).contains(&message.expires_at.unwrap()));
        let forever = Message::connection("c").expires_in(Duration::MAX).payload(&1).unwrap();
        assert_eq!(forever.expires_at, Some(u64::MAX));
    }
}
