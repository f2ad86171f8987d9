//! aa-derive through its public API and as a command.

mod cli;
mod common;
mod disk;
