//! The commands of `streamer`, one file each. [`set_up`] and [`target`] are shared by several
//! commands, and [`background`] belongs to `up`.

pub mod background;
pub mod completions;
pub mod connections;
pub mod demo;
pub mod disconnect;
pub mod doctor;
pub mod down;
pub mod env;
pub mod forget;
pub mod listen;
pub mod logs;
pub mod mailbox;
pub mod man;
pub mod package;
pub mod receipts;
pub mod redrive;
pub mod send;
pub mod set_up;
pub mod status;
pub mod target;
pub mod token;
pub mod up;
pub mod web;
