//! The packer: fills batches by count and by bytes.

use crate::limits::{QUEUE_BATCH_MESSAGES, QUEUE_MESSAGE_BYTES};

/// What one batch holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Items in a batch, at least 1.
    pub items: usize,
    /// Bytes of all the items of a batch.
    pub bytes: usize,
}

impl Limit {
    /// What one `SendMessageBatch` takes: 10 messages and 1 MiB.
    pub const QUEUE_BATCH: Self = Self { items: QUEUE_BATCH_MESSAGES, bytes: QUEUE_MESSAGE_BYTES };
}

/// Packs items into batches, in order, each batch as full as the limit lets it be.
///
/// An item that is larger than `limit.bytes` gets a batch of its own: only its receiver can say what is to
/// become of it.
pub fn pack<T>(
    items: impl IntoIterator<Item = T>,
    limit: Limit,
    bytes_of: impl Fn(&T) -> usize,
) -> Vec<Vec<T>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0_usize;
    for item in items {
        let size = bytes_of(&item);
        if !batch.is_empty() && (batch.len() >= limit.items || bytes.saturating_add(size) > limit.bytes) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes = bytes.saturating_add(size);
        batch.push(item);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Limit = Limit { items: 10, bytes: 100 };

    #[test]
    fn no_items_make_no_batch() {
        assert!(pack(Vec::<usize>::new(), LIMIT, |size| *size).is_empty());
    }

    #[test]
    fn the_eleventh_item_opens_a_batch() {
        let lengths: Vec<_> = pack(vec![1; 11], LIMIT, |size| *size).iter().map(Vec::len).collect();
        assert_eq!(lengths, [10, 1]);
    }

    #[test]
    fn the_byte_over_the_limit_opens_a_batch() {
        assert_eq!(pack([50, 50, 1], LIMIT, |size| *size), [vec![50, 50], vec![1]]);
    }

    #[test]
    fn an_item_over_the_limit_has_a_batch_of_its_own() {
        assert_eq!(pack([1, 101, 1], LIMIT, |size| *size), [vec![1], vec![101], vec![1]]);
    }

    proptest! {
        #[test]
        fn every_item_is_in_one_batch_in_order_and_no_batch_could_take_the_next_item(
            sizes in prop::collection::vec(0_usize..130, 0..200),
        ) {
            let batches = pack(sizes.iter().copied().enumerate(), LIMIT, |(_, size)| *size);
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
