//! Parsers for the values of variables. Each returns `None` for a malformed value.

use std::time::Duration;

use http::Uri;

/// Accepts any text.
#[must_use]
pub fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Parses a whole number.
#[must_use]
pub fn whole(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// Parses whole seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<Duration> {
    whole(text).map(Duration::from_secs)
}

/// Parses `true` or `false`.
#[must_use]
pub fn flag(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// Parses a comma-separated list of non-empty items, and trims each item.
#[must_use]
pub fn list(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|item| Some(item.trim().to_owned()).filter(|item| !item.is_empty())).collect()
}

/// Parses an `http` or `https` URL with a host and without a query, and removes trailing slashes.
#[must_use]
pub fn http_url(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let host = uri.host()?;
    let valid = matches!(scheme, "http" | "https") && !host.is_empty() && uri.query().is_none();
    valid.then(|| text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_has_http_scheme_host_no_query() {
        assert_eq!(http_url("https://a.example/stage/"), Some("https://a.example/stage".into()));
        assert_eq!(http_url("http://127.0.0.1:4566"), Some("http://127.0.0.1:4566".into()));
        for text in ["wss://a.example", "a.example", "/stage", "https://", "https://a.example/?q=1", "a b"] {
            assert_eq!(http_url(text), None, "{text}");
        }
    }

    #[test]
    fn list_rejects_empty_items() {
        assert_eq!(list("acme, globex"), Some(vec!["acme".into(), "globex".into()]));
        assert_eq!(list("acme,,globex"), None);
    }

    #[test]
    fn numbers_and_flags_parse_strictly() {
        assert_eq!(seconds("5"), Some(Duration::from_secs(5)));
        for text in ["-1", "1.5", "5s", ""] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!((flag("true"), flag("false"), flag("1")), (Some(true), Some(false), None));
    }
}
