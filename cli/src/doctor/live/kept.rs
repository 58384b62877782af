//! Removes the run's items from the client's stream in the mailbox.

use streamer_mailbox::{DynamoTable, Raise, Table as _};

use super::{DEFAULT_USER, run::Run};

/// Messages of the stream that are looked at.
const READ: usize = 100;

/// The result of the removal.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// The number of items that were removed.
    pub(super) items: usize,
    /// An item that remains.
    pub(super) left: Option<String>,
}

impl Run<'_> {
    /// Returns whether the client is the command's own user, whose stream belongs to the checks.
    pub(super) fn is_own_user(&self) -> bool {
        self.client.user.as_str() == DEFAULT_USER
    }
}

/// Erases the stream of the command's own user. Removes only the run's message and devices from the stream of another.
///
/// # Errors
/// The reason as text.
pub(super) async fn remove(run: &Run<'_>) -> Result<Removed, String> {
    let (Some(mailbox), Some(name)) = (run.mailbox(), run.subject.variable("MAILBOX_TABLE")) else {
        return Ok(Removed::default());
    };
    let stream = run.stream();
    if run.is_own_user() {
        let erased = mailbox.erase(&stream).await.map_err(|error| error.to_string())?;
        return Ok(Removed { items: erased.items, left: None });
    }
    let devices = run.made.devices.borrow().clone();
    for connection in &devices {
        mailbox.unregister(&stream, connection).await.map_err(|error| error.to_string())?;
    }
    let table = DynamoTable::new(aws_sdk_dynamodb::Client::new(&run.subject.config), name);
    remove_message(run, &table).await.map_err(|error| error.to_string())
}

/// Removes the run's message if no message of others is before it: readers skip the numbers up to the floor.
async fn remove_message(run: &Run<'_>, table: &DynamoTable) -> Result<Removed, streamer_mailbox::TableError> {
    let stream = run.stream();
    let Some(head) = table.head(&stream).await? else { return Ok(Removed::default()) };
    if head.floor >= head.top {
        return Ok(Removed::default());
    }
    let (messages, _) = table.messages(&stream, &head.epoch, head.floor + 1..=head.top, READ).await?;
    let is_own = |id: &str| id.starts_with(&run.id);
    let Some((seq, _)) = messages.iter().find(|(_, message)| is_own(message.id.as_str())) else {
        return Ok(Removed::default());
    };
    if messages.iter().any(|(other, message)| other < seq && !is_own(message.id.as_str())) {
        let left = format!("{}-kept, behind messages of the user", run.id);
        return Ok(Removed { items: 0, left: Some(left) });
    }
    let (Raise::Raised(_) | Raise::Higher(_)) = table.raise_floor(&stream, &head.epoch, *seq).await? else {
        return Ok(Removed::default());
    };
    let (begin, end) = (format!("m#{}#", head.epoch), format!("#{seq:020}"));
    let (mut keys, _) = table.item_keys(&stream, None).await?;
    keys.retain(|key| key.starts_with(&begin) && key.ends_with(&end));
    let unprocessed = table.delete_items(&stream, &keys).await?;
    let left = (!unprocessed.is_empty()).then(|| format!("{}-kept, which readers do not see", run.id));
    Ok(Removed { items: keys.len() - unprocessed.len(), left })
}
