//! How many posts there were in the last while, and how many of them were of a kind.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// A sliding window. It is counted in parts, so it holds no more than its length over theirs, and one.
#[derive(Debug)]
pub struct Window {
    length: Duration,
    part: Duration,
    parts: VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    began: Instant,
    posts: u32,
    marked: u32,
}

impl Window {
    /// An empty window of this length, in parts of that one.
    #[must_use]
    pub fn new(length: Duration, part: Duration) -> Self {
        Self { length, part, parts: VecDeque::new() }
    }

    /// Counts a post, and whether it is of the kind, and forgets what is too old.
    pub fn count(&mut self, marked: bool, now: Instant) {
        while self.parts.front().is_some_and(|part| now.saturating_duration_since(part.began) >= self.length)
        {
            self.parts.pop_front();
        }
        if self.parts.back().is_none_or(|part| now.saturating_duration_since(part.began) >= self.part) {
            self.parts.push_back(Part { began: now, posts: 0, marked: 0 });
        }
        if let Some(part) = self.parts.back_mut() {
            part.posts += 1;
            part.marked += u32::from(marked);
        }
    }

    /// The posts in the window at the last count, and how many of them are of the kind.
    #[must_use]
    pub fn totals(&self) -> (u32, u32) {
        self.parts.iter().fold((0, 0), |(posts, marked), part| (posts + part.posts, marked + part.marked))
    }
}
