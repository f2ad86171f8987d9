//! Storage pools: from a pool's name and a volume's to a path.

/// The pools that are known.
#[derive(Debug, Clone, Default)]
pub struct Pools;
