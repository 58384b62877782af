//! Readers for the texts of variables: `None` for what is malformed.

use std::time::Duration;

use http::Uri;

/// Any text.
#[must_use]
pub fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A whole number.
#[must_use]
pub fn whole(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// Whole seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<Duration> {
    whole(text).map(Duration::from_secs)
}

/// `true` or `false`.
#[must_use]
pub fn flag(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// Texts with commas between them, none of them empty.
#[must_use]
pub fn list(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|item| Some(item.trim().to_owned()).filter(|item| !item.is_empty())).collect()
}

/// An `http` or `https` URL with a host and without a query, returned without a slash at its end.
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
    fn a_url_is_http_has_a_host_and_no_query() {
        assert_eq!(http_url("https://a.example/stage/"), Some("https://a.example/stage".into()));
        assert_eq!(http_url("http://127.0.0.1:4566"), Some("http://127.0.0.1:4566".into()));
        for text in ["wss://a.example", "a.example", "/stage", "https://", "https://a.example/?q=1", "a b"] {
            assert_eq!(http_url(text), None, "{text}");
        }
    }

    #[test]
    fn a_list_has_no_empty_item() {
        assert_eq!(list("acme, globex"), Some(vec!["acme".into(), "globex".into()]));
        assert_eq!(list("acme,,globex"), None);
    }

    #[test]
    fn numbers_and_flags_are_read_strictly() {
        assert_eq!(seconds("5"), Some(Duration::from_secs(5)));
        for text in ["-1", "1.5", "5s", ""] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!((flag("true"), flag("false"), flag("1")), (Some(true), Some(false), None));
    }
}
