//! Exactly once, whatever is killed.
