//! What a process reads at its start.
//!
//! - [`Environment`] reads variables into a typed struct and reports every faulty one in one message.
//! - [`values`] reads the texts of variables.
//! - [`aws::loader`] is the AWS configuration that every client here is built from: one HTTP client, one TLS
//!   stack ([`tls`]).

pub mod aws;
pub mod tls;
pub mod values;

use std::fmt;

/// An environment variable, as its documentation and its error text describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub expected: &'static str,
    /// A valid value.
    pub example: &'static str,
}

/// Reads variables, and remembers every one that is missing or malformed.
///
/// ```
/// use streamer_environment::{Environment, Variable, values};
///
/// const GRACE: Variable =
///     Variable { name: "CONNECT_GRACE_SECONDS", expected: "whole seconds", example: "5" };
///
/// let mut environment = Environment::of([("CONNECT_GRACE_SECONDS", "soon")]);
/// let grace = environment.required(&GRACE, values::seconds);
/// let error = environment.finish(|| grace).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "1 environment variable is faulty: CONNECT_GRACE_SECONDS is malformed \
///      (expected whole seconds; for example 5)"
/// );
/// ```
pub struct Environment {
    lookup: Box<Lookup>,
    faults: Vec<Fault>,
}

type Lookup = dyn Fn(&str) -> Option<String>;

/// Every variable that keeps the process from starting. No text repeats a value, which may be a secret.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct EnvironmentError {
    faults: Vec<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    variable: Variable,
    what: &'static str,
}

impl Environment {
    /// The variables of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self { lookup: Box::new(|name| std::env::var(name).ok()), faults: Vec::new() }
    }

    /// The given variables and no others.
    #[must_use]
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let lookup = move |wanted: &str| {
            variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        Self { lookup: Box::new(lookup), faults: Vec::new() }
    }

    /// Reads a variable that must be set. `None` means that a fault was noted.
    pub fn required<T>(&mut self, variable: &Variable, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.optional(variable, read)?;
        if value.is_none() {
            self.faults.push(Fault { variable: *variable, what: "missing" });
        }
        value
    }

    /// Reads a variable that may be absent; empty is as good as absent. `None` means that a fault was noted.
    pub fn optional<T>(
        &mut self,
        variable: &Variable,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some(text) = (self.lookup)(variable.name).filter(|text| !text.is_empty()) else {
            return Some(None);
        };
        let value = read(&text);
        if value.is_none() {
            self.faults.push(Fault { variable: *variable, what: "malformed" });
        }
        value.map(Some)
    }

    /// Reads a variable that may be absent but not empty: for what protects, where a text that was lost on its way must
    /// not mean that nothing is protected. `None` means that a fault was noted.
    pub fn optional_not_empty<T>(
        &mut self,
        variable: &Variable,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        if (self.lookup)(variable.name).is_some_and(|text| text.is_empty()) {
            self.fault(variable, "empty");
            return None;
        }
        self.optional(variable, read)
    }

    /// Reads a variable that has a default. `None` means that a fault was noted.
    pub fn or<T>(
        &mut self,
        variable: &Variable,
        read: impl FnOnce(&str) -> Option<T>,
        default: impl FnOnce() -> T,
    ) -> Option<T> {
        self.optional(variable, read).map(|value| value.unwrap_or_else(default))
    }

    /// Notes what is wrong with a variable beside others, such as `set beside another`.
    pub fn fault(&mut self, variable: &Variable, what: &'static str) {
        self.faults.push(Fault { variable: *variable, what });
    }

    /// Builds the configuration from what was read.
    ///
    /// # Errors
    /// [`EnvironmentError`] when any fault was noted.
    pub fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, EnvironmentError> {
        match build() {
            Some(configuration) if self.faults.is_empty() => Ok(configuration),
            _ => Err(EnvironmentError { faults: self.faults }),
        }
    }
}

impl fmt::Display for EnvironmentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => write!(formatter, "1 environment variable is faulty")?,
            count => write!(formatter, "{count} environment variables are faulty")?,
        }
        for (index, Fault { variable: Variable { name, expected, example }, what }) in
            self.faults.iter().enumerate()
        {
            let separator = if index == 0 { ": " } else { "; " };
            write!(formatter, "{separator}{name} is {what} (expected {expected}; for example {example})")?;
        }
        Ok(())
    }
}

/// As [`Display`](fmt::Display): a `main` that returns the error prints it so.
impl fmt::Debug for EnvironmentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: Variable = Variable { name: "URL", expected: "a URL", example: "https://example.com" };
    const GRACE: Variable = Variable { name: "GRACE", expected: "whole seconds", example: "5" };

    #[test]
    fn every_faulty_variable_stands_in_one_line() {
        let mut environment = Environment::of([("GRACE", "s3cret")]);
        let url = environment.required(&URL, values::http_url);
        let grace = environment.or(&GRACE, values::seconds, Default::default);
        let error = environment.finish(|| Some((url?, grace?))).unwrap_err();
        assert_eq!(
            format!("{error:?}"),
            "2 environment variables are faulty: \
             URL is missing (expected a URL; for example https://example.com); \
             GRACE is malformed (expected whole seconds; for example 5)"
        );
    }

    #[test]
    fn empty_is_as_good_as_absent() {
        let mut environment = Environment::of([("URL", ""), ("GRACE", "")]);
        assert_eq!(environment.optional(&URL, values::http_url), Some(None));
        assert_eq!(environment.or(&GRACE, values::whole, || 7), Some(7));
        assert_eq!(environment.required(&GRACE, values::whole), None);
        assert!(environment.finish(|| Some(())).is_err());
    }

    #[test]
    fn without_a_fault_the_configuration_is_built() {
        let mut environment = Environment::of([("GRACE", "9")]);
        let grace = environment.required(&GRACE, values::whole);
        assert_eq!(environment.finish(|| grace), Ok(9));
    }
}
