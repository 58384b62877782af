//! Remembers ids, in bounded memory.

use std::collections::{HashSet, VecDeque};

/// The ids that were inserted last. At its limit, each new one replaces the oldest.
#[derive(Debug)]
pub(crate) struct Recent {
    limit: usize,
    ids: HashSet<String>,
    /// The same ids, oldest first.
    order: VecDeque<String>,
}

impl Recent {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, ids: HashSet::new(), order: VecDeque::new() }
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Inserts an id. Returns whether it is new.
    pub(crate) fn insert(&mut self, id: &str) -> bool {
        let is_new = self.ids.insert(id.to_owned());
        if is_new {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_id_is_replaced_at_limit() {
        let mut recent = Recent::new(2);
        assert_eq!(["a", "b", "a", "c"].map(|id| recent.insert(id)), [true, true, false, true]);
        assert_eq!(["a", "b", "c"].map(|id| recent.contains(id)), [false, true, true]);
        assert_eq!(recent.order.len(), recent.ids.len());
    }
}
