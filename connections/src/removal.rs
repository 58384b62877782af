//! The result of a delete that leaves young rows and those of other endpoints.

use crate::{Endpoints, row::Row};

/// The result of a conditional delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// There is no row now.
    Removed,
    /// The row stays: its connection was made too late.
    TooYoung,
    /// The row stays: its connection is at this endpoint.
    Elsewhere(String),
}

impl Removal {
    /// Says why the condition did not hold, by the row that DynamoDB returns with its refusal.
    pub(crate) fn refused(row: Option<&Row>, cutoff: u128, here: &Endpoints) -> Self {
        let attribute = |name: &str| row.and_then(|row| row.get(name));
        let endpoint = attribute("endpoint").and_then(|endpoint| endpoint.as_s().ok());
        let is_old = attribute("connected_at").is_none_or(|at| {
            at.as_n().ok().and_then(|at| at.parse::<u128>().ok()).is_some_and(|at| at < cutoff)
        });
        match endpoint {
            Some(endpoint) if !here.include(endpoint) => Self::Elsewhere(endpoint.clone()),
            // Under another name, which the next try has.
            Some(endpoint) if is_old => Self::Elsewhere(endpoint.clone()),
            _ => Self::TooYoung,
        }
    }
}
