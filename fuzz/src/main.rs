//! The fuzzer of all targets; `fuzz/run` builds and starts it. FUZZ_TARGET names the target.

#![no_main]

mod codecs;
mod history;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static CHECK: OnceLock<fn(&[u8])> = OnceLock::new();

/// The check that the environment names: libFuzzer reads the arguments itself.
fn check() -> fn(&[u8]) {
    let wanted = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names the target");
    let mut targets = codecs::TARGETS.iter().chain(history::TARGETS);
    targets.find(|(name, _)| *name == wanted).expect("there is such a target").1
}

fuzz_target!(|data: &[u8]| CHECK.get_or_init(check)(data));
