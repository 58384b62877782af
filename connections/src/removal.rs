//! The result of a delete that leaves the rows of young connections and of connections elsewhere.

use crate::{endpoints::Endpoints, row::Row};

/// The result of a conditional delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// The row is removed, or did not exist.
    Removed,
    /// The row stays: its connection was made at the cutoff or later.
    TooYoung,
    /// The row stays: its connection is at another endpoint, this one.
    Elsewhere(String),
}

impl Removal {
    /// Returns why the condition failed, according to the row that DynamoDB returns with the error.
    pub(crate) fn refused(row: Option<&Row>, cutoff: u128, here: &Endpoints) -> Self {
        let attribute = |name: &str| row.and_then(|row| row.get(name));
        let endpoint = attribute("endpoint").and_then(|endpoint| endpoint.as_s().ok());
        let is_old = attribute("connected_at").is_none_or(|at| {
            at.as_n().ok().and_then(|at| at.parse::<u128>().ok()).is_some_and(|at| at < cutoff)
        });
        match endpoint {
            Some(endpoint) if !here.include(endpoint) => Self::Elsewhere(endpoint.clone()),
            // The condition compared another alias. The retry uses the alias of the row.
            Some(endpoint) if is_old => Self::Elsewhere(endpoint.clone()),
            _ => Self::TooYoung,
        }
    }
}
