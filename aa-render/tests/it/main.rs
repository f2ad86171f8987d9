//! Tests of the program: as it is called, against the real parser, and when it is killed.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod dfa;
#[cfg(test)]
mod parser;
#[cfg(test)]
mod support;
