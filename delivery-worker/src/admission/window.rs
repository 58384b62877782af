//! Counts posts, and the throttled ones among them, over the latest period.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// A sliding window. It holds at most `length / bucket_length + 1` buckets.
#[derive(Debug)]
pub(super) struct Window {
    length: Duration,
    bucket_length: Duration,
    buckets: VecDeque<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    began: Instant,
    posts: u32,
    throttled: u32,
}

impl Window {
    /// Builds an empty window of `length`, in buckets of `bucket_length`.
    #[must_use]
    pub(super) fn new(length: Duration, bucket_length: Duration) -> Self {
        Self { length, bucket_length, buckets: VecDeque::new() }
    }

    /// Counts a post, and drops buckets that are too old.
    pub(super) fn record(&mut self, is_throttled: bool, now: Instant) {
        let age = |bucket: &Bucket| now.saturating_duration_since(bucket.began);
        while self.buckets.front().is_some_and(|bucket| age(bucket) >= self.length) {
            self.buckets.pop_front();
        }
        if self.buckets.back().is_none_or(|bucket| age(bucket) >= self.bucket_length) {
            self.buckets.push_back(Bucket { began: now, posts: 0, throttled: 0 });
        }
        if let Some(bucket) = self.buckets.back_mut() {
            bucket.posts += 1;
            bucket.throttled += u32::from(is_throttled);
        }
    }

    /// Returns the posts in the window as of the latest record, and the throttled ones among them.
    #[must_use]
    pub(super) fn totals(&self) -> (u32, u32) {
        self.buckets
            .iter()
            .fold((0, 0), |(posts, throttled), bucket| (posts + bucket.posts, throttled + bucket.throttled))
    }
}
