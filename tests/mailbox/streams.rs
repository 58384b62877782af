//! Streams by their behaviour, over the table in memory.

mod append;
mod erase;
mod interleaved;
mod overflow;
mod pages;
mod units;
