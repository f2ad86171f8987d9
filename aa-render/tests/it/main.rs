//! Tests of the program: as it is called, against the real parser, and when it is killed.

mod cli;
mod crash;
mod dfa;
mod parser;
mod support;
