//! Messages and their audiences.

use std::fmt;

use streamer_message::{
    ConnectionId, Keep, MessageId, Payload, ReceiptRequest, Request, TenantId, UserId,
    limits::KEPT_PAYLOAD_BYTES,
};

use crate::{builder::MessageBuilder, entry::entries, error::MessageError};

/// A valid message, within every limit, that [`Producer::send`](crate::Producer::send) can send.
///
/// Its constructors name the audience and return a [`MessageBuilder`]. The builder's setters are optional; a method
/// that sets the content, such as [`response`](MessageBuilder::response), ends it.
///
/// ```
/// use std::time::Duration;
/// use streamer_producer::Message;
///
/// let message = Message::user("acme", "anna").expires_in(Duration::from_secs(5)).payload("hello")?;
/// # drop(message);
/// # Ok::<_, streamer_producer::MessageError>(())
/// ```
#[derive(Clone)]
#[must_use = "a message does nothing until it is sent"]
pub struct Message {
    pub(crate) to: Recipients,
    pub(crate) fair_queue_tenant: Option<TenantId>,
    pub(crate) id: MessageId,
    pub(crate) payload: Payload<'static>,
    pub(crate) request: Option<Request>,
    pub(crate) supersedable: bool,
    pub(crate) expires_at: Option<u64>,
    pub(crate) keep: Option<Keep>,
    pub(crate) receipt: Option<ReceiptRequest>,
    pub(crate) trace: Option<String>,
}

/// The recipients of a message, any number of them.
#[derive(Debug, Clone)]
pub(crate) enum Recipients {
    Connections(Vec<ConnectionId>),
    User { tenant: TenantId, user: UserId },
    Tenant(TenantId),
}

impl Message {
    /// Begins a message for one connection.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let message = Message::connection("L0SM9cOFvHcCIhw=").response("hello")?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    pub fn connection(id: impl Into<String>) -> MessageBuilder {
        Self::connections([id])
    }

    /// Begins a message for any number of connections. On the queue, 100 connections share a message; on a FIFO queue,
    /// each has its own.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let message = Message::connections(["L0SM9cOFvHcCIhw=", "L0SNAcOFvHcCIzw="]).payload("hello")?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    pub fn connections<I: Into<String>>(ids: impl IntoIterator<Item = I>) -> MessageBuilder {
        let ids: Result<Vec<_>, _> = ids.into_iter().map(ConnectionId::new).collect();
        MessageBuilder::new(ids.map(|ids| (!ids.is_empty()).then_some(Recipients::Connections(ids))))
    }

    /// Begins a message for the connections that a user has when it is delivered, or opens within the worker's away
    /// grace (30 s by default). Use it for work that may outlive a socket, which API Gateway closes after 2 hours.
    ///
    /// Source: "Connection duration for WebSocket API" in
    /// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let message = Message::user("acme", "anna").payload("hello")?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    pub fn user(tenant: impl Into<String>, user: impl Into<String>) -> MessageBuilder {
        let user = TenantId::new(tenant).and_then(|tenant| {
            let user = UserId::new(user)?;
            Ok(Some(Recipients::User { tenant, user }))
        });
        MessageBuilder::new(user)
    }

    /// Begins a message for all connections of a tenant. A FIFO queue takes no such message.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let message = Message::tenant("acme").payload("hello")?;
    /// # drop(message);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    pub fn tenant(tenant: impl Into<String>) -> MessageBuilder {
        MessageBuilder::new(TenantId::new(tenant).map(|tenant| Some(Recipients::Tenant(tenant))))
    }

    /// Returns the message's id.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// Returns the bodies that [`Producer::send`](crate::Producer::send) puts on a standard queue: one, or one for each
    /// 100 connections. Publish them on an SNS topic with raw message delivery, in front of the
    /// queues of several cells.
    ///
    /// The body for a user or a tenant is within the 256 KiB of a topic with default settings. All bodies are in
    /// characters that SNS and SQS accept.
    ///
    /// Source: <https://docs.aws.amazon.com/sns/latest/dg/large-message-payloads.html>.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let bodies = Message::tenant("acme").id("notice-3").payload("closing soon")?.bodies();
    /// assert_eq!(bodies, [r#"{"version":1,"id":"notice-3","to":{"tenant":"acme"},"payload":"closing soon"}"#]);
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    #[must_use]
    pub fn bodies(self) -> Vec<String> {
        entries(self, false).map(|entry| entry.body).collect()
    }
}

/// Omits the payload, which may be confidential.
impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, id, request, .. } = self;
        let mut message = formatter.debug_struct("Message");
        message.field("to", to).field("id", id).field("request", request).finish_non_exhaustive()
    }
}

/// Checks that a message which is to be kept is for a user, and not too large.
pub(crate) fn check_keep(
    keep: Option<Keep>,
    to: &Recipients,
    payload: &Payload<'_>,
) -> Result<(), MessageError> {
    match (keep, to, payload.as_str().len()) {
        (None, ..) | (_, Recipients::User { .. }, 0..=KEPT_PAYLOAD_BYTES) => Ok(()),
        (Some(_), Recipients::User { .. }, bytes) => Err(MessageError::KeptPayload { bytes }),
        (Some(_), ..) => Err(MessageError::KeepAudience),
    }
}
