//! A message to send.

/// A message to send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The index of the record that it is about.
    pub index: usize,
    /// The body.
    pub body: String,
    /// The message attributes. None of them is empty, as SQS requires.
    pub attributes: Vec<(&'static str, String)>,
    /// The delay on the queue, in seconds.
    pub delay: u32,
    /// The message group.
    pub group: Option<String>,
    /// The X-Ray trace header.
    pub trace: Option<String>,
}

impl Outgoing {
    /// Returns the size as SQS counts it: the body, and each attribute's name, type and value.
    ///
    /// Source: "Message size" in
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |(name, value): &(&str, String)| name.len() + "String".len() + value.len();
        self.body.len() + self.attributes.iter().map(bytes).sum::<usize>()
    }
}
