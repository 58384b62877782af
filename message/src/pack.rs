//! Packs items into batches, by count and by bytes.

use std::iter;

use crate::limits::{QUEUE_BATCH_MESSAGES, QUEUE_MESSAGE_BYTES};

/// The maximum size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Maximum number of items, at least 1.
    pub items: usize,
    /// Maximum bytes of all items together.
    pub bytes: usize,
}

impl Limit {
    /// The limit of one `SendMessageBatch` call: 10 messages and 1 MiB.
    pub const QUEUE_BATCH: Self = Self { items: QUEUE_BATCH_MESSAGES, bytes: QUEUE_MESSAGE_BYTES };
}

/// Packs items into batches, in order, each as full as the limit allows. The iterator is lazy: for a batch, it reads
/// the batch's items and at most one more, which does not fit.
///
/// An item larger than `limit.bytes` is alone in its batch, so that the receiver of the batch can refuse it.
pub fn pack<T>(
    items: impl IntoIterator<Item = T>,
    limit: Limit,
    bytes_of: impl Fn(&T) -> usize,
) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter().peekable();
    iter::from_fn(move || {
        let first = items.next()?;
        let mut bytes = bytes_of(&first);
        let mut batch = vec![first];
        while batch.len() < limit.items {
            let fits = |item: &T| bytes.saturating_add(bytes_of(item)) <= limit.bytes;
            let Some(item) = items.next_if(fits) else { break };
            bytes = bytes.saturating_add(bytes_of(&item));
            batch.push(item);
        }
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Limit = Limit { items: 10, bytes: 100 };

    #[test]
    fn no_items_make_no_batch() {
        assert_eq!(pack(Vec::<usize>::new(), LIMIT, |size| *size).next(), None);
    }

    #[test]
    fn eleventh_item_begins_a_batch() {
        let lengths: Vec<_> = pack(vec![1; 11], LIMIT, |size| *size).map(|batch| batch.len()).collect();
        assert_eq!(lengths, [10, 1]);
    }

    #[test]
    fn byte_over_limit_begins_a_batch() {
        assert!(pack([50, 50, 1], LIMIT, |size| *size).eq([vec![50, 50], vec![1]]));
    }

    #[test]
    fn oversized_item_is_alone_in_batch() {
        assert!(pack([1, 101, 1], LIMIT, |size| *size).eq([vec![1], vec![101], vec![1]]));
    }

    proptest! {
        /// Every item is in one batch, in order, and no batch could hold the next item.
        #[test]
        fn batches_are_ordered_complete_and_full(
            sizes in prop::collection::vec(0_usize..130, 0..200),
        ) {
            let batches: Vec<_> = pack(sizes.iter().copied().enumerate(), LIMIT, |(_, size)| *size).collect();
            let total = |batch: &[(usize, usize)]| batch.iter().map(|(_, size)| size).sum::<usize>();

            prop_assert!(batches.iter().flatten().copied().eq(sizes.iter().copied().enumerate()));
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= LIMIT.items);
                prop_assert!(total(batch) <= LIMIT.bytes || batch.len() == 1);
            }
            for pair in batches.windows(2) {
                let full = pair[0].len() == LIMIT.items || total(&pair[0]) + pair[1][0].1 > LIMIT.bytes;
                prop_assert!(full, "{:?} could have taken {:?}", pair[0], pair[1][0]);
            }
        }
    }
}
