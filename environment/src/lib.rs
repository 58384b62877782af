//! Environment variables and the AWS configuration, which a process reads once, at its start.
//!
//! - [`Environment`] reads variables into a typed struct and reports every faulty one in one message.
//! - [`values`] parses the values of variables.
//! - [`aws::loader`] returns the AWS configuration that every client is built from: one HTTP client, one TLS
//!   stack ([`tls`]).
//! - [`failure::FailureKind`]: why a call to AWS failed.

pub mod aws;
pub mod failure;
pub mod tls;
pub mod values;

use std::fmt;

/// An environment variable, as its documentation and its error text describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// The name.
    pub name: &'static str,
    /// A description of the valid values.
    pub expected: &'static str,
    /// A valid value.
    pub example: &'static str,
}

/// Reads variables, and records every one that is missing or malformed.
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

/// The variable is missing or malformed. [`Environment::finish`] reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the variable is faulty")]
pub struct Faulty;

/// Every variable that keeps the process from starting. The text contains no values, which may be secret.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct EnvironmentError {
    faults: Vec<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    variable: Variable,
    problem: &'static str,
}

impl Environment {
    /// Returns the variables of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self { lookup: Box::new(|name| std::env::var(name).ok()), faults: Vec::new() }
    }

    /// Returns the given variables and no others.
    #[must_use]
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let variables: Vec<(String, String)> = variables.collect();
        let lookup = move |wanted: &str| {
            variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        Self { lookup: Box::new(lookup), faults: Vec::new() }
    }

    /// Reads a variable that must be set.
    ///
    /// # Errors
    /// [`Faulty`] if the variable is unset, empty or malformed.
    pub fn required<T>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Faulty> {
        match self.optional(variable, parse)? {
            Some(value) => Ok(value),
            None => Err(self.fault(variable, "missing")),
        }
    }

    /// Reads a variable that may be unset. An empty value counts as unset.
    ///
    /// # Errors
    /// [`Faulty`] if the variable is malformed.
    pub fn optional<T>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Faulty> {
        let Some(text) = (self.lookup)(variable.name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(self.fault(variable, "malformed")),
        }
    }

    /// Reads a variable that may be unset but not empty. For settings that restrict access: a value lost during
    /// deployment must not lift the restriction.
    ///
    /// # Errors
    /// [`Faulty`] if the variable is empty or malformed.
    pub fn optional_not_empty<T>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Faulty> {
        if (self.lookup)(variable.name).is_some_and(|text| text.is_empty()) {
            return Err(self.fault(variable, "empty"));
        }
        self.optional(variable, parse)
    }

    /// Reads a variable that has a default.
    ///
    /// # Errors
    /// [`Faulty`] if the variable is malformed.
    pub fn or<T>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Option<T>,
        default: impl FnOnce() -> T,
    ) -> Result<T, Faulty> {
        self.optional(variable, parse).map(|value| value.unwrap_or_else(default))
    }

    /// Records a problem with a variable that depends on other variables, such as `set together with another`.
    pub fn fault(&mut self, variable: &Variable, problem: &'static str) -> Faulty {
        self.faults.push(Fault { variable: *variable, problem });
        Faulty
    }

    /// Builds the configuration from the values read.
    ///
    /// # Errors
    /// [`EnvironmentError`] if any variable is faulty.
    pub fn finish<T>(self, build: impl FnOnce() -> Result<T, Faulty>) -> Result<T, EnvironmentError> {
        match build() {
            Ok(configuration) if self.faults.is_empty() => Ok(configuration),
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
        for (index, Fault { variable: Variable { name, expected, example }, problem }) in
            self.faults.iter().enumerate()
        {
            let separator = if index == 0 { ": " } else { "; " };
            write!(formatter, "{separator}{name} is {problem} (expected {expected}; for example {example})")?;
        }
        Ok(())
    }
}

/// Formats as [`Display`](fmt::Display): `main` prints the error it returns with `Debug`.
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
    fn one_line_names_every_faulty_variable() {
        let mut environment = Environment::of([("GRACE", "s3cret")]);
        let url = environment.required(&URL, values::http_url);
        let grace = environment.or(&GRACE, values::seconds, Default::default);
        let error = environment.finish(|| Ok((url?, grace?))).unwrap_err();
        assert_eq!(
            format!("{error:?}"),
            "2 environment variables are faulty: \
             URL is missing (expected a URL; for example https://example.com); \
             GRACE is malformed (expected whole seconds; for example 5)"
        );
    }

    #[test]
    fn empty_counts_as_unset() {
        let mut environment = Environment::of([("URL", ""), ("GRACE", "")]);
        assert_eq!(environment.optional(&URL, values::http_url), Ok(None));
        assert_eq!(environment.or(&GRACE, values::whole, || 7), Ok(7));
        assert_eq!(environment.required(&GRACE, values::whole), Err(Faulty));
        assert!(environment.finish(|| Ok(())).is_err());
    }

    #[test]
    fn valid_variables_build_the_configuration() {
        let mut environment = Environment::of([("GRACE", "9")]);
        let grace = environment.required(&GRACE, values::whole);
        assert_eq!(environment.finish(|| grace), Ok(9));
    }
}
