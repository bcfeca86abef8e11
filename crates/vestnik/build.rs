//! Where the functions of a release stand in the program: those that run are put side by side. The system
//! maps pages around each one that is touched, so a program whose functions are spread takes several
//! megabytes more, and its caches hold less of it.
//!
//! `functions.order` names them, without what changes with every build; `packaging/order-functions` writes it
//! anew. A function that is not in it, or has another name now, stands behind: an old list costs memory,
//! nothing else.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target whose names are in the list.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What flags for the compiler say when they choose a linker.
const CHOICES: [&str; 3] = ["linker", "fuse-ld", "link-self-contained"];

fn main() {
    println!("cargo::rerun-if-changed=functions.order");
    for argument in order().into_iter().flatten() {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}

/// What the linker is told; `None` where the functions keep their places: in builds that are no release, and
/// wherever another linker than the one that comes with Rust is in use.
fn order() -> Option<[String; 6]> {
    let flags = variable("CARGO_ENCODED_RUSTFLAGS")?;
    let is_for_it = variable("PROFILE")? == "release"
        && variable("TARGET")? == TARGET
        && variable("HOST")? == TARGET
        && variable("RUSTC_LINKER").is_none()
        && !CHOICES.iter().any(|choice| flags.contains(choice));
    if !is_for_it {
        return None;
    }
    let root = Command::new(variable("RUSTC")?).args(["--print", "sysroot"]).output().ok()?;
    let root = String::from_utf8(root.stdout).ok()?;
    let linkers: PathBuf = [root.trim(), "lib/rustlib", TARGET, "bin/gcc-ld"].iter().collect();
    if !linkers.join("ld.lld").exists() {
        return None;
    }
    let names = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("functions.order");
    let names = std::fs::read_to_string(names).ok()?;
    let script = Path::new(&variable("OUT_DIR")?).join("functions.ld");
    std::fs::write(&script, linker_script(&names)).ok()?;
    Some([
        format!("-B{}", linkers.display()),
        "-fuse-ld=lld".to_owned(),
        "-Xlinker".to_owned(),
        "-T".to_owned(),
        "-Xlinker".to_owned(),
        script.display().to_string(),
    ])
}

/// The code of the program: first the functions with these names, those above an empty line before those
/// below, then all others.
fn linker_script(names: &str) -> String {
    let mut script = String::from("SECTIONS {\n  .text : {\n");
    for names in names.split("\n\n") {
        script.push_str("    *(");
        for name in names.lines() {
            // Writing to a text cannot fail.
            let _ = write!(script, "\n      .text.{name} .text.unlikely.{name}");
        }
        script.push_str(")\n");
    }
    script.push_str("    *(.text .text.*)\n  }\n}\nINSERT BEFORE .init;\n");
    script
}

/// What cargo tells.
#[expect(clippy::disallowed_methods, reason = "this is how cargo tells a build script")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
