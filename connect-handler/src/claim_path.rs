//! Names of claims, as the configuration writes them.

use std::fmt;

use serde_json::Value;

use crate::fault::Kind;

/// The place of a claim in a token: a name, such as `sub` or `https://app.example/tenant`, or a JSON pointer (RFC 6901)
/// to a value inside a claim, such as `/realm_access/roles`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath {
    text: String,
    claim: String,
    inner: Vec<String>,
}

impl ClaimPath {
    /// Parses a path. A text that begins with `/` is a JSON pointer, any other a claim's name.
    ///
    /// ```
    /// use connect_handler::claim_path::ClaimPath;
    ///
    /// assert_eq!(ClaimPath::parse("/realm_access/roles").unwrap().claim(), "realm_access");
    /// assert_eq!(ClaimPath::parse("https://app.example/tenant").unwrap().claim(), "https://app.example/tenant");
    /// assert!(ClaimPath::parse("/a~b").is_none());
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let Some(pointer) = text.strip_prefix('/') else {
            return (!text.is_empty()).then(|| Self::named(text));
        };
        let mut tokens = pointer.split('/').map(unescaped).collect::<Option<Vec<_>>>()?.into_iter();
        let claim = tokens.next()?;
        Some(Self { text: text.to_owned(), claim, inner: tokens.collect() })
    }

    /// Returns the path of a whole claim.
    #[must_use]
    pub fn named(claim: &str) -> Self {
        Self { text: claim.to_owned(), claim: claim.to_owned(), inner: Vec::new() }
    }

    /// Returns the name of the claim that the path begins with.
    #[must_use]
    pub fn claim(&self) -> &str {
        &self.claim
    }

    /// Returns whether the path is that of a whole claim with this name.
    pub(crate) fn is(&self, claim: &str) -> bool {
        self.claim == claim && self.inner.is_empty()
    }

    /// Returns the value at the path inside the value of its claim. `None` if it is absent. `null` counts as absent.
    ///
    /// # Errors
    /// The kind of a value in which there is no such place: a list where the path names a member, an object where it has
    /// an index, or a value that is neither.
    pub(crate) fn find(&self, mut value: Value) -> Result<Option<Value>, Kind> {
        for token in &self.inner {
            let found = match value {
                Value::Object(mut members) => match members.remove(token) {
                    None if index(token).is_some() => return Err(Kind::Object),
                    found => found,
                },
                Value::Array(mut items) => {
                    let index = index(token).ok_or(Kind::List)?;
                    (index < items.len()).then(|| items.swap_remove(index))
                }
                Value::Null => None,
                other => return Err(Kind::of(&other)),
            };
            let Some(found) = found else { return Ok(None) };
            value = found;
        }
        Ok(Some(value).filter(|value| !value.is_null()))
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Decodes a token of a JSON pointer, where `~0` is `~` and `~1` is `/`.
fn unescaped(token: &str) -> Option<String> {
    let is_valid = token.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    is_valid.then(|| token.replace("~1", "/").replace("~0", "~"))
}

/// Parses an array's index, which has no leading zeros.
fn index(token: &str) -> Option<usize> {
    let has_leading_zero = token.len() > 1 && token.starts_with('0');
    let is_decimal = !has_leading_zero && token.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(path: &str, value: Value) -> Result<Option<Value>, Kind> {
        ClaimPath::parse(path).unwrap().find(value)
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        let value = json!({"a": [{"b/c": 1}, "x"], "": {"": 2}, "m~n": 3, "01": 4, "null": null});
        for (path, expected) in [
            ("claim", Some(value.clone())),
            ("/claim/a/0/b~1c", Some(json!(1))),
            ("/claim/a/1", Some(json!("x"))),
            ("/claim//", Some(json!(2))),
            ("/claim/m~0n", Some(json!(3))),
            ("/claim/01", Some(json!(4))),
            ("/claim/a/2", None),
            ("/claim/none", None),
            ("/claim/none/x", None),
            ("/claim/null", None),
            ("/claim/null/x", None),
        ] {
            assert_eq!(find(path, value.clone()), Ok(expected), "{path}");
        }
        for (path, kind) in [
            ("/claim/a/01", Kind::List),
            ("/claim/a/-", Kind::List),
            ("/claim/a/+1", Kind::List),
            ("/claim/a/x", Kind::List),
            ("/claim/a/1/x", Kind::Text),
            ("/claim/01/0", Kind::Number),
            ("/claim/0", Kind::Object),
        ] {
            assert_eq!(find(path, value.clone()), Err(kind), "{path}");
        }
    }

    #[test]
    fn text_without_slash_is_a_name() {
        for name in ["sub", "custom:tenant_id", "https://app.example/a~2", "a/b"] {
            let path = ClaimPath::parse(name).unwrap();
            assert_eq!((path.claim(), path.inner.len(), path.to_string()), (name, 0, name.to_owned()));
        }
        assert_eq!(ClaimPath::parse("/~1a~01").unwrap().claim(), "/a~1");
        for malformed in ["", "/~", "/~2", "/a/b~"] {
            assert_eq!(ClaimPath::parse(malformed), None, "{malformed}");
        }
    }
}
