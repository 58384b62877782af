//! Progress of a request, at a limited rate.

use std::time::Duration;

use serde::Serialize;
use streamer_message::{Percent, PercentOutOfRange, limits};
use tokio::time::Instant;

use crate::{
    builder::MessageBuilder,
    error::{MessageError, ProgressError},
    message::Message,
    producer::Producer,
};

/// Default interval between two updates: 10 updates per second.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Length of a text that fits into a payload, however it is escaped.
const SAFE_BYTES: usize = limits::PAYLOAD_BYTES / 8;

/// The progress of one request for one audience: updates, and then one end.
///
/// The program may call [`update`](Self::update) at any rate. The first update leaves at once. Of the updates within
/// 100 ms of the last one that left, only the latest is kept. It leaves with the first call after the 100 ms, with
/// [`flush`](Self::flush), or before the end. So at most 10 updates per second leave, and the last is never dropped.
/// There is no timer: before a pause, call [`flush`](Self::flush) to send the last update.
///
/// [`complete`](Self::complete), [`fail`](Self::fail) and [`respond`](Self::respond) end the progress, after every
/// update:
///
/// ```compile_fail,E0382
/// # async fn example(progress: streamer_producer::Progress) -> Result<(), streamer_producer::EndError> {
/// progress.complete("done").await?;
/// progress.fail("late", "a second end does not compile").await
/// # }
/// ```
///
/// If the builder [keeps](MessageBuilder::keep) the message or asks for a [receipt](MessageBuilder::receipt), that
/// applies to the end, and not to the updates.
///
/// An end first sends the pending update. If that fails within half the producer's [timeout](Producer::timeout), the
/// end drops the update. Dropping the handle, or the future of an end, also drops the pending update.
#[derive(Debug)]
#[must_use = "every request needs an end: complete it, or fail it"]
pub struct Progress {
    producer: Producer,
    update: MessageBuilder,
    end: MessageBuilder,
    min_interval: Duration,
    /// The time at which the last update left.
    left_at: Option<Instant>,
    reached: Percent,
    pending: Option<Update>,
}

#[derive(Debug)]
struct Update {
    percent: Percent,
    message: Option<String>,
}

/// The end of a request is not on the queue. Retry it with [`progress`](Self::progress).
#[derive(Debug, thiserror::Error)]
#[error("the end of the request is not on the queue: retry it with the returned handle")]
#[non_exhaustive]
pub struct EndError {
    /// Why the end is not on the queue.
    #[source]
    pub error: ProgressError,
    /// The handle, for a retry. All its ends have the same id, so a client that drops ids it has seen gets one end,
    /// even if the first one was on the queue after all.
    pub progress: Box<Progress>,
}

impl Producer {
    /// Returns a handle for the [`Progress`] of one request.
    ///
    /// ```no_run
    /// # use streamer_producer::{Message, Percent, Producer};
    /// # async fn example(producer: &Producer, rows: u64) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut progress = producer.progress(Message::user("acme", "anna").request("req_123"))?;
    /// for row in 0..rows {
    ///     progress.update(Percent::of(row, rows), "writing the report").await?;
    /// }
    /// progress.complete("done").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MessageError`] if the builder names no request, or a value that is not valid: correct it.
    pub fn progress(&self, to: MessageBuilder) -> Result<Progress, MessageError> {
        if !to.has_request() {
            return Err(MessageError::NoRequest);
        }
        // Reports values that are not valid now, and not with the first update.
        drop(to.clone().acknowledgment(None)?);
        Ok(Progress {
            producer: self.clone(),
            update: to.clone().without_id().into_update(),
            end: to.with_id(),
            min_interval: MIN_INTERVAL,
            left_at: None,
            reached: Percent::ZERO,
            pending: None,
        })
    }
}

impl Progress {
    /// Sets the minimum interval between two updates. The default is 100 ms.
    pub fn min_interval(self, interval: Duration) -> Self {
        Self { min_interval: interval, ..self }
    }

    /// Reports how much of the work is done, as a whole number from 0 to 100, with a text for people. Returns at once
    /// if the update is kept for later, and otherwise when the queue has it.
    ///
    /// ```no_run
    /// # async fn example(mut progress: streamer_producer::Progress) -> Result<(), Box<dyn std::error::Error>> {
    /// progress.update(40, "writing the report").await?;
    /// progress.update(50, None).await?;
    /// progress.complete("done").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProgressError`]: a percentage over 100 or below the last one, and a text that is too long, are ignored. An
    /// update that could not be sent is kept for the next call. A program whose work matters more than its progress
    /// ignores the error, and gives the handle's producer a short [timeout](Producer::timeout).
    pub async fn update(
        &mut self,
        percent: impl TryInto<Percent, Error: Into<PercentOutOfRange>>,
        message: impl Into<Option<&str>>,
    ) -> Result<(), ProgressError> {
        let percent = percent.try_into().map_err(Into::into)?;
        if percent < self.reached {
            return Err(ProgressError::Backwards { from: self.reached, to: percent });
        }
        let message = message.into();
        if message.is_some_and(|message| message.len() > SAFE_BYTES) {
            drop(self.update.clone().progress(percent, message)?);
        }
        self.reached = percent;
        self.pending = Some(Update { percent, message: message.map(str::to_owned) });
        match self.left_at {
            Some(left_at) if left_at.elapsed() < self.min_interval => Ok(()),
            _ => self.flush().await,
        }
    }

    /// Sends the pending update, if there is one, regardless of the rate.
    ///
    /// ```no_run
    /// # async fn example(mut progress: streamer_producer::Progress) -> Result<(), Box<dyn std::error::Error>> {
    /// progress.update(90, "waiting for the printer").await?;
    /// progress.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProgressError`]. The update is kept for the next call.
    pub async fn flush(&mut self) -> Result<(), ProgressError> {
        let Some(update) = &self.pending else { return Ok(()) };
        let message = self.update.clone().progress(update.percent, update.message.as_deref())?;
        self.left_at = Some(Instant::now());
        self.producer.send(message).await?;
        self.pending = None;
        Ok(())
    }

    /// Ends the request with its result.
    ///
    /// ```no_run
    /// # async fn example(progress: streamer_producer::Progress) -> Result<(), streamer_producer::EndError> {
    /// if let Err(failed) = progress.complete("done").await {
    ///     failed.progress.complete("done").await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EndError`] returns the handle: retry with it.
    pub async fn complete<T: Serialize + ?Sized>(self, result: &T) -> Result<(), EndError> {
        self.end(|end| end.complete(result)).await
    }

    /// Ends the request with an answer, for a client that expects a `response`.
    ///
    /// # Errors
    /// [`EndError`] returns the handle: retry with it.
    pub async fn respond<T: Serialize + ?Sized>(self, data: &T) -> Result<(), EndError> {
        self.end(|end| end.response(data)).await
    }

    /// Ends the request with an error: `code` is for programs, and `message` for people.
    ///
    /// ```no_run
    /// # async fn example(progress: streamer_producer::Progress) -> Result<(), streamer_producer::EndError> {
    /// progress.fail("printer_offline", "the printer does not answer").await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EndError`] returns the handle: retry with it.
    pub async fn fail(self, code: &str, message: &str) -> Result<(), EndError> {
        self.end(|end| end.error(code, message)).await
    }

    async fn end(
        mut self,
        message: impl Fn(MessageBuilder) -> Result<Message, MessageError>,
    ) -> Result<(), EndError> {
        match self.send_end(message).await {
            Ok(()) => Ok(()),
            Err(error) => Err(EndError { error, progress: Box::new(self) }),
        }
    }

    async fn send_end(
        &mut self,
        message: impl Fn(MessageBuilder) -> Result<Message, MessageError>,
    ) -> Result<(), ProgressError> {
        // Builds the end before the update leaves: an end that is not valid changes nothing.
        drop(message(self.end.clone())?);
        // An update that cannot be sent must not use up the time for the end.
        let producer = self.producer.clone();
        self.producer = producer.clone().timeout(producer.timeout / 2);
        let flushed = self.flush().await;
        self.producer = producer;
        if flushed.is_err() {
            self.pending = None;
        }
        // Built again after the update, so that its `seq` is higher.
        Ok(self.producer.send(message(self.end.clone())?).await?)
    }
}
