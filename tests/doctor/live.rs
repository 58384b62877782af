//! Connections, delivery and answers.
