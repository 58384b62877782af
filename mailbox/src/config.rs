//! The environment variables of the programs that use the mailbox.

use streamer_environment::{Environment, Faulty, Variable, values};

use crate::mailbox::DEFAULT_MAX_MESSAGES;

/// The name of the table.
pub const MAILBOX_TABLE: Variable = Variable {
    name: "MAILBOX_TABLE",
    expected: "the name of the mailbox's table; without it, `delivery-worker` rejects messages that are to be kept",
    example: "streamer-mailbox",
};

/// The generation.
pub const MAILBOX_GENERATION: Variable = Variable {
    name: "MAILBOX_GENERATION",
    expected: "1 to 8 letters and digits, `0` by default; another value after the table was restored from a backup, so \
               that clients start over",
    example: "1",
};

/// The maximum number of messages of one user.
pub const MAILBOX_MAX_MESSAGES: Variable = Variable {
    name: "MAILBOX_MAX_MESSAGES",
    expected: "the messages that are kept for one user, from 100 to 10000, 1000 by default; the oldest are removed beyond it",
    example: "1000",
};

/// Reads [`MAILBOX_TABLE`], which may be absent.
///
/// # Errors
/// [`Faulty`] if the variable is malformed.
pub fn mailbox_table(environment: &mut Environment) -> Result<Option<String>, Faulty> {
    environment.optional(&MAILBOX_TABLE, values::text)
}

/// Reads [`MAILBOX_TABLE`].
///
/// # Errors
/// [`Faulty`] if the variable is missing or malformed.
pub fn required_mailbox_table(environment: &mut Environment) -> Result<String, Faulty> {
    environment.required(&MAILBOX_TABLE, values::text)
}

/// Reads [`MAILBOX_GENERATION`].
///
/// # Errors
/// [`Faulty`] if the variable is malformed.
pub fn generation(environment: &mut Environment) -> Result<String, Faulty> {
    let parse = |text: &str| {
        let is_valid = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_valid.then(|| text.to_owned())
    };
    environment.or(&MAILBOX_GENERATION, parse, || "0".to_owned())
}

/// Reads [`MAILBOX_MAX_MESSAGES`].
///
/// # Errors
/// [`Faulty`] if the variable is malformed, below 100 or over 10 000.
pub fn max_messages(environment: &mut Environment) -> Result<u64, Faulty> {
    let parse = |text: &str| values::whole(text).filter(|messages| (100..=10_000).contains(messages));
    environment.or(&MAILBOX_MAX_MESSAGES, parse, || DEFAULT_MAX_MESSAGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &'static str, value: &'static str) -> Environment {
        Environment::of([(name, value)])
    }

    #[test]
    fn generation_has_letters_and_digits() {
        let read = |value| generation(&mut environment("MAILBOX_GENERATION", value)).ok();
        assert_eq!(
            (read("1"), read("2026b"), read("")),
            (Some("1".into()), Some("2026b".into()), Some("0".into()))
        );
        assert_eq!([read("123456789"), read("a.b"), read("é")], [None, None, None]);
    }

    #[test]
    fn maximum_is_bounded() {
        let read = |value| max_messages(&mut environment("MAILBOX_MAX_MESSAGES", value)).ok();
        assert_eq!([read("100"), read("10000"), read("")], [Some(100), Some(10_000), Some(1000)]);
        assert_eq!([read("99"), read("10001"), read("many")], [None; 3]);
    }
}
