//! The issuers whose tokens are accepted.

use crate::fetch::KeyUrl;

/// The placeholder for a token's `tid`, its tenant in Entra ID, in the issuer of Entra's configuration for all tenants.
pub(crate) const TENANT: &str = "{tenantid}";

/// The tenant at which Entra publishes the configuration and keys of all tenants.
const ALL_TENANTS: &str = "common";

/// The `iss` of accepted tokens: a text, or Entra's `https://login.microsoftonline.com/{tenantid}/v2.0`, in which the
/// token's `tid` replaces `{tenantid}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerName(String);

impl IssuerName {
    /// Creates a name from the text of `JWT_ISSUER`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the name as an issuer's configuration gives it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the URL below which the issuer's configuration lies. `None` if the name is not an https URL without a
    /// query.
    #[must_use]
    pub fn url(&self) -> Option<KeyUrl> {
        KeyUrl::new(&self.0.replace(TENANT, ALL_TENANTS)).filter(|_| !self.0.contains(['?', '#']))
    }

    /// Returns whether a token with these claims `iss` and `tid` is from this issuer.
    #[must_use]
    pub fn matches(&self, iss: &str, tid: Option<&str>) -> bool {
        match self.0.split_once(TENANT) {
            None => self.0 == iss,
            Some((before, after)) => {
                let found = iss.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                // A directory's id is a UUID. Another text could contain a part of the URL.
                let is_id = |text: &str| {
                    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                };
                found.is_some_and(|found| is_id(found) && Some(found) == tid)
            }
        }
    }
}

/// Returns whether an `iss` is a user pool of Amazon Cognito. Its tokens have a `token_use`.
///
/// Source: <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html>.
pub(crate) fn is_cognito(iss: &str) -> bool {
    let host = iss.strip_prefix("https://cognito-idp.").and_then(|rest| rest.split('/').next());
    host.is_some_and(|host| host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entra_issuer_must_match_tid() {
        let entra = IssuerName::new("https://login.microsoftonline.com/{tenantid}/v2.0");
        let iss = "https://login.microsoftonline.com/11111111-2222/v2.0";
        assert!(entra.matches(iss, Some("11111111-2222")));
        for (iss, tid) in [
            (iss, None),
            (iss, Some("33333333")),
            ("https://login.microsoftonline.com//v2.0", Some("")),
            ("https://login.microsoftonline.com/a/b/v2.0", Some("a/b")),
            ("https://evil.example/11111111-2222/v2.0", Some("11111111-2222")),
            ("https://login.microsoftonline.com/{tenantid}/v2.0", Some("{tenantid}")),
            ("https://login.microsoftonline.com/v2.0", Some("")),
        ] {
            assert!(!entra.matches(iss, tid), "{iss} {tid:?}");
        }
        assert_eq!(entra.url(), KeyUrl::new("https://login.microsoftonline.com/common/v2.0"));
    }

    #[test]
    fn other_issuers_match_exactly() {
        let issuer = IssuerName::new("https://auth.example.com/");
        assert!(issuer.matches("https://auth.example.com/", Some("tenant")));
        assert!(!issuer.matches("https://auth.example.com", None));
        for text in ["auth.example.com", "https://auth.example.com?a", "https://auth.example.com#a"] {
            assert_eq!(IssuerName::new(text).url(), None, "{text}");
        }
    }

    #[test]
    fn cognito_is_recognized_by_host() {
        for iss in [
            "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_a",
            "https://cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_a",
        ] {
            assert!(is_cognito(iss), "{iss}");
        }
        for iss in [
            "https://cognito-idp.eu-central-1.amazonaws.com.evil.example/a",
            "https://cognito-idp.evil.example/x.amazonaws.com",
            "https://auth.example.com/",
        ] {
            assert!(!is_cognito(iss), "{iss}");
        }
    }
}
