//! The network edge.
