//! Whole calls, against a parser that writes down what it was asked for.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod life;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod tree;
