//! Management endpoints with several names for the same API and stage.

/// A management endpoint and its aliases, such as a custom domain.
///
/// A comparison ignores the case of scheme and host, a default port, and trailing slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    name: String,
    /// The name and the aliases, normalized.
    known: Vec<String>,
}

impl Endpoints {
    /// Creates an endpoint with aliases.
    #[must_use]
    pub fn new(name: impl Into<String>, aliases: impl IntoIterator<Item = String>) -> Self {
        let name = name.into();
        let aliases = aliases.into_iter().map(|alias| normalized(&alias));
        Self { known: [normalized(&name)].into_iter().chain(aliases).collect(), name }
    }

    /// Returns the endpoint's own name, without aliases.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether `endpoint` is the name or an alias.
    #[must_use]
    pub fn include(&self, endpoint: &str) -> bool {
        self.name == endpoint || self.known.contains(&normalized(endpoint))
    }
}

impl From<&str> for Endpoints {
    fn from(name: &str) -> Self {
        Self::new(name, [])
    }
}

fn normalized(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
    let port = if scheme == "https" { ":443" } else { ":80" };
    let host = authority.strip_suffix(port).unwrap_or(&authority);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_ignores_case_port_and_slashes() {
        let endpoints = Endpoints::from("https://a.example.com/production");
        for same in [
            "https://a.example.com/production",
            "https://a.example.com/production/",
            "HTTPS://A.Example.com/production",
            "https://a.example.com:443/production",
        ] {
            assert!(endpoints.include(same), "{same}");
        }
        for other in [
            "http://a.example.com/production",
            "https://b.example.com/production",
            "https://a.example.com/Production",
            "https://a.example.com",
            "https://a.example.com:8443/production",
            "",
        ] {
            assert!(!endpoints.include(other), "{other}");
        }
    }

    #[test]
    fn aliases_are_included() {
        let endpoints =
            Endpoints::new("https://ws.example.com", ["https://A.example.com/production/".to_owned()]);
        assert!(endpoints.include("https://a.example.com/production"));
        assert_eq!(endpoints.name(), "https://ws.example.com");
    }
}
