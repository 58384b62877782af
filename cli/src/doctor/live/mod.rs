//! Uses a deployment as clients and producers do.

use streamer_message::{TenantId, UserId};

use super::{Check, Subject};

/// What the checks do, for the plan that is printed before them.
pub const PLAN: &str = "";

/// The client that the checks connect.
#[derive(Debug)]
pub struct Client {
    /// URL that clients connect to.
    pub url: String,
    /// Its token.
    pub token: String,
    /// Tenant of the token.
    pub tenant: TenantId,
    /// User of the token.
    pub user: UserId,
}

/// Runs the checks, each through `done` when it ends.
pub async fn examine(_subject: &Subject, _client: &Client, _done: &mut impl FnMut(Check)) {}
