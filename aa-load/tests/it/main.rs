//! Tests of the program: as it is called, and when the system or the parser fails it.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod merge;
#[cfg(test)]
mod state;
#[cfg(test)]
mod support;
