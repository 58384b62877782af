//! Queues, functions, tables and the clock.
