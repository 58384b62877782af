//! Management endpoints with several names for the same API and stage, and those of other cells.

/// A management endpoint and its aliases, such as a custom domain, with the endpoints of other cells.
///
/// A comparison ignores the case of scheme and host, a default port, and trailing slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    name: String,
    /// The name and the aliases, normalized.
    known: Vec<String>,
    /// The endpoints of the cells, normalized.
    cells: Vec<String>,
}

/// The side of an endpoint on which a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// At the endpoint, or one of its aliases.
    Here,
    /// In another cell, whose worker gets the message, too.
    OtherCell,
    /// At an endpoint that is not known.
    Elsewhere,
}

impl Endpoints {
    /// Creates an endpoint with aliases.
    #[must_use]
    pub fn new(name: impl Into<String>, aliases: impl IntoIterator<Item = String>) -> Self {
        let name = name.into();
        let aliases = aliases.into_iter().map(|alias| normalized(&alias));
        Self { known: [normalized(&name)].into_iter().chain(aliases).collect(), cells: Vec::new(), name }
    }

    /// Adds the endpoints of cells. The list may contain the endpoint itself, so all cells can have the same one.
    #[must_use]
    pub fn with_cells(mut self, cells: impl IntoIterator<Item = String>) -> Self {
        self.cells.extend(cells.into_iter().map(|cell| normalized(&cell)));
        self
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

    /// Returns the location of a connection at `endpoint`.
    #[must_use]
    pub fn locate(&self, endpoint: &str) -> Location {
        if self.include(endpoint) {
            return Location::Here;
        }
        match self.cells.contains(&normalized(endpoint)) {
            true => Location::OtherCell,
            false => Location::Elsewhere,
        }
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

    #[test]
    fn own_endpoint_comes_before_cells() {
        let cells = ["https://a.example.com/", "HTTPS://b.example.com:443", "https://alias.example.com"];
        let endpoints = Endpoints::new("https://a.example.com", ["https://alias.example.com".to_owned()])
            .with_cells(cells.map(str::to_owned));
        let located = [
            ("https://a.example.com", Location::Here),
            ("https://alias.example.com/", Location::Here),
            ("https://b.example.com/", Location::OtherCell),
            ("https://c.example.com", Location::Elsewhere),
        ];
        for (endpoint, location) in located {
            assert_eq!(endpoints.locate(endpoint), location, "{endpoint}");
        }
        assert!(!endpoints.include("https://b.example.com"));
    }
}
