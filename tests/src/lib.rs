//! The tests are in `it/` and, for a guest with an AppArmor kernel, in `guest/`.
