//! Describes audiences for people.

use streamer_message::Audience;

/// Returns a short text, such as `user anna of acme`.
pub(crate) fn describe(audience: &Audience) -> String {
    match audience {
        Audience::Connection(id) => id.to_string(),
        Audience::Connections(ids) => format!("{} connections", ids.as_slice().len()),
        Audience::User { tenant, user } => format!("user {user} of {tenant}"),
        Audience::Tenant(tenant) => format!("tenant {tenant}"),
        Audience::Shard { tenant, .. } => format!("a shard of tenant {tenant}"),
    }
}
