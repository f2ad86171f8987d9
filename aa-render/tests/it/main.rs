//! Tests of the program: as it is called, against the real parser, and when the system fails it.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod document;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod lies;
#[cfg(test)]
mod parser;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod support;
