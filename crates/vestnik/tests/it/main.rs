//! The one end-to-end test binary: starts real parts and speaks raw bytes.

mod clients;
