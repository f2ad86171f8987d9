//! Tests across the borders of the tools: what one writes, the next reads, and the parser takes.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod contract;
#[cfg(test)]
mod documents;
mod faults;
#[cfg(test)]
mod hostile;
mod landlock;
mod many;
mod messages;
mod mounts;
mod names;
mod pipeline;
#[cfg(test)]
mod readme;
mod tools;
