//! Messages as text, to keep the unsent ones.

use streamer_message::{Audience, OutboundMessage, Payload};

use crate::{
    entry::entries,
    error::MessageError,
    message::{Message, Recipients, check_keep},
};

impl Message {
    /// Encodes the message as bodies of queue messages: one body for each 100 connections. A program that keeps them
    /// can send the message later, with the id that it has. The bodies hold neither a trace header nor the tenant for
    /// fair queues.
    ///
    /// ```
    /// # use streamer_producer::Message;
    /// let message = Message::user("acme", "anna").id("order-7").payload("hello")?;
    /// let [body] = &message.encode()[..] else { panic!("a user is one audience") };
    /// assert_eq!(Message::decode(body)?.id(), message.id());
    /// # Ok::<_, streamer_producer::MessageError>(())
    /// ```
    #[must_use]
    pub fn encode(&self) -> Vec<String> {
        entries(self.clone(), false).map(|entry| entry.body).collect()
    }

    /// Decodes a message that [`encode`](Self::encode) or another producer encoded. The id, the expiry and the
    /// payload's bytes stay the same.
    ///
    /// # Errors
    /// [`MessageError`] for a body that is not valid, or that only a worker writes: correct it.
    pub fn decode(body: &str) -> Result<Self, MessageError> {
        let OutboundMessage {
            id,
            to,
            payload,
            request,
            supersedable,
            expires_at,
            keep,
            receipt,
            retry,
            unknown,
            ..
        } = OutboundMessage::decode(body)?;
        if retry.is_some() {
            return Err(MessageError::NotOfProducer("`retry`"));
        }
        if receipt.as_ref().is_some_and(|receipt| !receipt.is_of_producer()) {
            return Err(MessageError::NotOfProducer("`receipt` with notes"));
        }
        if !unknown.is_empty() {
            return Err(MessageError::NotOfProducer("a field besides those of the schema"));
        }
        let to = match to {
            Audience::Connection(id) => Recipients::Connections(vec![id]),
            Audience::Connections(ids) => Recipients::Connections(ids.as_slice().to_vec()),
            Audience::User { tenant, user } => Recipients::User { tenant, user },
            Audience::Tenant(tenant) => Recipients::Tenant(tenant),
            Audience::Shard { .. } => return Err(MessageError::NotOfProducer("`shard`")),
        };
        let payload = Payload::from_json(payload.as_str().to_owned())?;
        check_keep(keep, &to, &payload)?;
        let (fair_queue_tenant, trace) = (None, None);
        Ok(Self {
            to,
            fair_queue_tenant,
            id,
            payload,
            request,
            supersedable,
            expires_at,
            keep,
            receipt,
            trace,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn decoded_message_is_the_same() {
        let expiring = || Message::connection("c").expires_in(Duration::from_secs(60));
        for message in [
            expiring().request("r").progress(40, Some("half")).unwrap(),
            expiring().id("m").json(r#"{ "b": 1.0, "a": [1e400, "\ud800"] }"#).unwrap(),
            Message::connections(["a", "b"]).payload(&1).unwrap(),
            Message::user("acme", "anna").keep(Duration::from_secs(60)).payload(&1).unwrap(),
            Message::tenant("acme").payload(&1).unwrap(),
        ] {
            let bodies = message.encode();
            assert_eq!(bodies.len(), 1);
            assert_eq!(Message::decode(&bodies[0]).unwrap().encode(), bodies);
        }
    }

    #[test]
    fn hundred_connections_share_a_body() {
        let ids: Vec<_> = (0..250).map(|id| format!("c{id}")).collect();
        let message = Message::connections(ids).payload(&1).unwrap();
        assert_eq!(message.encode().len(), 3);
    }

    #[test]
    fn bodies_of_workers_are_refused() {
        let with = |to: &str, more: &str| format!(r#"{{"version":1,"id":"m","to":{to},"payload":1{more}}}"#);
        let error = |body: &str| Message::decode(body).unwrap_err();
        let retry = r#","retry":{"count":1,"receives":0,"since":5,"cause":"503"}"#;
        let connection = r#"{"connection":"c"}"#;
        for body in [
            with(connection, retry),
            with(connection, r#","note":1"#),
            with(r#"{"tenant":"acme","shard":3}"#, ""),
        ] {
            assert!(matches!(error(&body), MessageError::NotOfProducer(_)), "{body}");
        }
        assert!(matches!(error("[]"), MessageError::Body(_)));
        let large = with(connection, "").replace(":1}", &format!(":\"{}\"}}", "x".repeat(128 * 1024)));
        assert!(matches!(error(&large), MessageError::Payload(_)));
    }
}
