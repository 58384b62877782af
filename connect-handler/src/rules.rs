//! The rules that a token's claims must satisfy.

use streamer_message::TenantId;

use crate::{claim_path::ClaimPath, issuer::IssuerName};

/// The rules that a token's claims must satisfy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The issuers; any if empty.
    pub issuers: Vec<IssuerName>,
    /// The audience.
    pub audience: Audience,
    /// The claims that become the connection's user, tenant and permissions.
    pub names: ClaimNames,
}

/// The audience that a token must name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Audience {
    /// None: a token with an `aud` is refused (RFC 7519, section 4.1.3).
    #[default]
    None,
    /// Any.
    Any,
    /// One of these values of a claim.
    OneOf {
        /// `aud`, or for access tokens of Amazon Cognito `client_id`.
        claim: ClaimPath,
        /// The accepted values.
        values: Vec<String>,
    },
}

/// The claims that become the connection's user, tenant and permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// The user.
    pub user: ClaimPath,
    /// The user's tenant.
    pub tenant: ClaimPath,
    /// The tenant of a user whose claims name none.
    pub default_tenant: Option<TenantId>,
    /// The user's permissions.
    pub permissions: ClaimPath,
}

impl Rules {
    /// Creates the rules for tokens of one issuer and audience.
    #[must_use]
    pub fn of(issuer: &str, audience: Audience) -> Self {
        Self { issuers: vec![IssuerName::new(issuer)], audience, names: ClaimNames::default() }
    }
}

impl Audience {
    /// Requires an `aud`.
    #[must_use]
    pub fn of(audience: &str) -> Self {
        Self::OneOf { claim: ClaimPath::named("aud"), values: vec![audience.to_owned()] }
    }
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            user: ClaimPath::named("sub"),
            tenant: ClaimPath::named("tenant_id"),
            default_tenant: None,
            permissions: ClaimPath::named("permissions"),
        }
    }
}
