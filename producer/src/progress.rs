//! Progress of a request, at a bounded rate.

use std::time::Duration;

use serde::Serialize;
use streamer_message::{Percent, PercentOutOfRange, limits};
use tokio::time::Instant;

use crate::{Message, MessageBuilder, MessageError, Producer, SendError};

/// Between two updates, where nothing else is said: 10 a second.
const INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of a message that fit into a payload however they are escaped.
const SURELY_FITS: usize = limits::PAYLOAD_BYTES / 8;

/// The progress of one request, told to one audience: updates, and then an end.
///
/// Updates may come at any rate. The first leaves at once; of those that come within 100 ms of the one that left
/// last, only the latest is kept, and leaves with the first call after that time, with [`flush`](Self::flush) or
/// before the end. So at most 10 a second leave, and the last is never dropped. There is no timer: who stops
/// updating for a while, and wants the last one seen, flushes.
///
/// [`complete`](Self::complete), [`fail`](Self::fail) and [`respond`](Self::respond) end it, after every update:
///
/// ```compile_fail,E0382
/// # async fn example(progress: streamer_producer::Progress) -> Result<(), streamer_producer::EndError> {
/// progress.complete("done").await?;
/// progress.fail("late", "a second end does not compile").await
/// # }
/// ```
///
/// An update that cannot be sent then, within half the producer's [time](Producer::time), is given up for the end.
/// Dropping the handle without an end drops the update that has not left; so does dropping the future of an end, and
/// with it the handle.
#[derive(Debug)]
#[must_use = "a request has an end: complete it, or fail it"]
pub struct Progress {
    producer: Producer,
    update: MessageBuilder,
    end: MessageBuilder,
    interval: Duration,
    /// When the last update began to leave.
    left_at: Option<Instant>,
    reached: Percent,
    pending: Option<Update>,
}

#[derive(Debug)]
struct Update {
    percent: Percent,
    message: Option<String>,
}

/// Why an update or an end is not on the queue.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// Over 100 percent.
    #[error(transparent)]
    Percent(#[from] PercentOutOfRange),
    /// Less than before.
    #[error("progress goes forwards: it was at {} percent, and this is {}", from.get(), to.get())]
    Backwards {
        /// What was reached.
        from: Percent,
        /// What was said now.
        to: Percent,
    },
    /// There can be no such message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The queue does not have it.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// A request that has not ended.
#[derive(Debug, thiserror::Error)]
#[error("the request has not ended: {error}")]
pub struct EndError {
    /// Why.
    #[source]
    pub error: ProgressError,
    /// The handle, for another try. Every end that it sends has the same id, so a client that drops an id that it
    /// has seen gets one end, also where the first try was on the queue after all.
    pub progress: Box<Progress>,
}

impl Progress {
    pub(crate) fn new(producer: Producer, to: MessageBuilder) -> Result<Self, MessageError> {
        if !to.is_of_a_request() {
            return Err(MessageError::NoRequest);
        }
        // What is wrong with the rest is told now, and not by the first update.
        drop(to.clone().acknowledgment(None)?);
        Ok(Self {
            producer,
            update: to.clone().without_an_id(),
            end: to.with_an_id(),
            interval: INTERVAL,
            left_at: None,
            reached: Percent::ZERO,
            pending: None,
        })
    }

    /// The same with another time between two updates; 100 ms by default.
    pub fn every(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Says that so many percent of the work, a whole number from 0 to 100, are done, with a word for people. It
    /// returns at once where the update does not leave yet, and else when the queue has it.
    ///
    /// # Errors
    /// [`ProgressError`]: a percentage over 100 or less than the last one, and a message that is too long, are not
    /// taken. What could not be sent is kept for the next call. Who does not want to lose the work over its progress
    /// goes on, and gives the handle's producer a short [time](Producer::time).
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
        if message.is_some_and(|message| message.len() > SURELY_FITS) {
            drop(self.update.clone().progress(percent, message)?);
        }
        self.reached = percent;
        self.pending = Some(Update { percent, message: message.map(str::to_owned) });
        match self.left_at {
            Some(left_at) if left_at.elapsed() < self.interval => Ok(()),
            _ => self.flush().await,
        }
    }

    /// Sends the update that has not left, if there is one, whatever the rate.
    ///
    /// # Errors
    /// [`ProgressError`]. What could not be sent is kept for the next call.
    pub async fn flush(&mut self) -> Result<(), ProgressError> {
        let Some(update) = &self.pending else { return Ok(()) };
        let message = self.update.clone().progress(update.percent, update.message.as_deref())?;
        self.left_at = Some(Instant::now());
        self.producer.send(message).await?;
        self.pending = None;
        Ok(())
    }

    /// Ends the request with what came of it.
    ///
    /// # Errors
    /// [`EndError`], with the handle.
    pub async fn complete<T: Serialize + ?Sized>(self, result: &T) -> Result<(), EndError> {
        self.end(|end| end.complete(result)).await
    }

    /// Ends the request with an answer, for a client that expects a `response`.
    ///
    /// # Errors
    /// [`EndError`], with the handle.
    pub async fn respond<T: Serialize + ?Sized>(self, data: &T) -> Result<(), EndError> {
        self.end(|end| end.response(data)).await
    }

    /// Ends the request with an error; a code for programs and a message for people.
    ///
    /// # Errors
    /// [`EndError`], with the handle.
    pub async fn fail(self, code: &str, message: &str) -> Result<(), EndError> {
        self.end(|end| end.error(code, message)).await
    }

    async fn end(
        mut self,
        message: impl Fn(MessageBuilder) -> Result<Message, MessageError>,
    ) -> Result<(), EndError> {
        match self.try_to_end(message).await {
            Ok(()) => Ok(()),
            Err(error) => Err(EndError { error, progress: Box::new(self) }),
        }
    }

    async fn try_to_end(
        &mut self,
        message: impl Fn(MessageBuilder) -> Result<Message, MessageError>,
    ) -> Result<(), ProgressError> {
        // An end that cannot be written changes nothing.
        drop(message(self.end.clone())?);
        // An update that cannot be sent must not keep the request from its end, nor use up all its time.
        let producer = self.producer.clone();
        self.producer = producer.clone().time(producer.time / 2);
        let told = self.flush().await;
        self.producer = producer;
        if told.is_err() {
            self.pending = None;
        }
        // Written after the update, so that its `seq` is higher.
        Ok(self.producer.send(message(self.end.clone())?).await?)
    }
}
