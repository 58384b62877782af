//! Messages, from whom they are for to what they say.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use streamer_message::{
    Audience, ClientContent, ClientError, ClientMessage, ConnectionId, Connections, InvalidAudience,
    InvalidId, MessageId, OutboundMessage, Payload, PayloadError, Percent, PercentOutOfRange, Request,
    RequestId, limits,
};

/// A message that can be sent: valid, and within every limit.
#[derive(Debug, Clone)]
pub struct Message {
    recipients: Vec<ConnectionId>,
    id: MessageId,
    payload: Payload<'static>,
    request: Option<Request>,
    supersedable: bool,
    expires_at: Option<u64>,
}

/// A message that does not yet say anything. What is wrong with it is told by the method that ends it.
#[derive(Debug)]
#[must_use]
pub struct MessageBuilder {
    recipients: Result<Vec<ConnectionId>, MessageError>,
    id: Result<Option<MessageId>, InvalidId>,
    request: Result<Option<RequestId>, InvalidId>,
    supersedable: Option<bool>,
    expires_in: Option<Duration>,
}

/// Why there can be no such message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// A message, request or connection id that is empty or too long.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// No recipient.
    #[error("the message is for nobody: name at least one connection")]
    NoRecipient,
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

    /// A message for some connections. [`Producer::send`](crate::Producer::send) takes one of up to 100,
    /// [`Producer::broadcast`](crate::Producer::broadcast) one of any number.
    pub fn connections<I: Into<String>>(ids: impl IntoIterator<Item = I>) -> MessageBuilder {
        let ids = ids.into_iter().map(|id| ConnectionId::new(id).map_err(MessageError::from)).collect();
        let recipients = match ids {
            Ok(ids) if Vec::is_empty(&ids) => Err(MessageError::NoRecipient),
            recipients => recipients,
        };
        MessageBuilder { recipients, id: Ok(None), request: Ok(None), supersedable: None, expires_in: None }
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// As one message of the queue.
    pub(crate) fn into_outbound(mut self) -> Result<OutboundMessage<'static>, InvalidAudience> {
        let recipients = std::mem::take(&mut self.recipients);
        Ok(self.outbound(audience(recipients)?))
    }

    /// As the messages of the queue that its recipients need, each for at most 100.
    pub(crate) fn split(mut self) -> Result<Vec<OutboundMessage<'static>>, InvalidAudience> {
        let recipients = std::mem::take(&mut self.recipients);
        let parts = recipients.chunks(limits::CONNECTIONS).map(<[ConnectionId]>::to_vec);
        parts.map(|part| audience(part).map(|to| self.outbound(to))).collect()
    }

    fn outbound(&self, to: Audience) -> OutboundMessage<'static> {
        OutboundMessage {
            id: self.id.clone(),
            request: self.request.clone(),
            supersedable: self.supersedable,
            expires_at: self.expires_at,
            ..OutboundMessage::new(to, self.payload.clone())
        }
    }
}

fn audience(mut recipients: Vec<ConnectionId>) -> Result<Audience, InvalidAudience> {
    match recipients.pop() {
        Some(only) if recipients.is_empty() => Ok(Audience::Connection(only)),
        last => Connections::new(recipients.into_iter().chain(last).collect()).map(Audience::Connections),
    }
}

impl MessageBuilder {
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
    pub fn progress(self, percent: u8, message: Option<&str>) -> Result<Message, MessageError> {
        let progress = Percent::try_from(percent)?;
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
        Ok(Message {
            recipients: self.recipients?,
            payload: payload(&id, request.as_ref())?,
            id,
            request,
            supersedable: self.supersedable.unwrap_or(supersedable),
            expires_at: self.expires_in.map(|time| now.saturating_add(time)).map(as_millis),
        })
    }
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
        let outbound = message.clone().into_outbound().unwrap();
        let seq = outbound.request.unwrap().seq;
        assert_eq!(
            payload(&message),
            json!({"type": "response", "data": "hello", "request_id": "r", "id": "m", "seq": seq})
        );
        assert_eq!((message.id().as_str(), outbound.supersedable, outbound.expires_at), ("m", false, None));
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
        assert!(matches!(Message::connection("c").progress(101, None), Err(MessageError::Percent(_))));
        let large = "x".repeat(limits::PAYLOAD_BYTES);
        assert!(matches!(Message::connection("c").payload(&large), Err(MessageError::Payload(_))));
        assert!(matches!(Message::connection("c").json("{"), Err(MessageError::Payload(_))));
    }

    #[test]
    fn a_message_is_split_by_100_and_keeps_its_id() {
        let ids: Vec<_> = (0..201).map(|number| format!("c{number}")).collect();
        let message = Message::connections(&ids).id("m").payload(&1).unwrap();
        assert!(matches!(message.clone().into_outbound(), Err(InvalidAudience::Connections(201))));

        let parts = message.split().unwrap();
        let recipients = parts.iter().flat_map(|part| match &part.to {
            Audience::Connection(id) => vec![id.as_str()],
            Audience::Connections(ids) => ids.as_slice().iter().map(ConnectionId::as_str).collect(),
            other => panic!("{other:?}"),
        });
        assert!(recipients.eq(ids.iter().map(String::as_str)));
        assert!(parts.iter().all(|part| part.id.as_str() == "m"));
        assert!(matches!(parts[2].to, Audience::Connection(_)), "a single recipient takes the short form");
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
