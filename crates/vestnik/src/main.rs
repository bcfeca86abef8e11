//! The `vestnik` program.

fn main() {}
