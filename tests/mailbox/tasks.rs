//! Tasks that a test polls step by step.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// A task. Dropping it kills it at its current step.
pub(crate) struct Task<'a, T>(Pin<Box<dyn Future<Output = T> + 'a>>);

impl<'a, T> Task<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'a) -> Self {
        Self(Box::pin(future))
    }

    /// Runs the task to its next step. Returns its result if it has ended.
    pub(crate) fn step(&mut self) -> Option<T> {
        match self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Runs the task for so many steps. Returns its result if it has ended.
    pub(crate) fn steps(&mut self, steps: usize) -> Option<T> {
        (0..steps).find_map(|_| self.step())
    }

    /// Runs the task to its end.
    pub(crate) fn finish(mut self) -> T {
        loop {
            if let Some(result) = self.step() {
                return result;
            }
        }
    }
}
