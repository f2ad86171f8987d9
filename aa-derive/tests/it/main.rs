//! aa-derive through its public API and as a command.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at the first thing that goes wrong"
)]

mod cli;
mod common;
mod disk;
mod fragments;
mod headers;
mod weaknesses;
