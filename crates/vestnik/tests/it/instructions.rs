//! Instructions of the hot functions, counted by callgrind and compared with what they were
//! (`docs/performance.md`, "Instructions").

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// More than this over the figure of the file fails; less than this below it, too: then the file is to be
/// brought up to date, so that the next step back is seen.
const TOLERANCE_PERCENT: f64 = 5.0;
/// Smaller differences are never one: of a function that takes a few hundred.
const TOLERANCE: f64 = 10.0;

const ABOUT: &str = "\
# Instructions of one operation (callgrind), compared by tests/it/instructions.rs. After an intended change:
#   UPDATE_INSTRUCTIONS=1 cargo nextest run --cargo-profile ci -p vestnik -E 'test(instructions)'
# They are those of the profile `ci` and of this compiler and machine:
";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.txt")
}

/// The program with the cases, which is built beside the tests.
fn program() -> PathBuf {
    let vestnik = Path::new(env!("CARGO_BIN_EXE_vestnik"));
    vestnik.with_file_name("examples").join("instructions")
}

fn output(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, err] =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(output.status.success(), "{command:?}: {err}");
    (out, err)
}

/// The instructions of a whole run.
fn count(case: &str, repetitions: u32) -> u64 {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program())
        .args([case, &repetitions.to_string()]);
    let (_, said) = output(&mut command);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.unwrap_or_else(|| panic!("no count: {said}"));
    collected.trim().parse().expect("a number")
}

/// Instructions of one operation: the difference of two runs, so that the start does not count.
fn measured() -> BTreeMap<String, f64> {
    const WORK: u32 = 2000;
    let (cases, _) = output(&mut Command::new(program()));
    let cases = cases.lines().map(|line| {
        let (name, operations) = line.split_once(' ').expect("a name and a number");
        let operations: u32 = operations.parse().expect("a number");
        let repetitions = (WORK / operations).max(20);
        // What grows once, such as a table, has grown in both.
        let [less, more] = [repetitions, 2 * repetitions].map(|it| count(name, it));
        let each = f64::from(u32::try_from(more - less).expect("a small number"))
            / f64::from(repetitions)
            / f64::from(operations);
        (name.to_owned(), each)
    });
    cases.collect()
}

/// The compiler and the machine, on which counts depend.
fn versions() -> String {
    let (compiler, _) = output(Command::new("rustc").arg("--version"));
    format!("{}, {}", compiler.trim(), std::env::consts::ARCH)
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the tests, not a setting of the program"
)]
fn the_hot_functions_take_no_more_instructions_than_they_did() {
    let measured = measured();
    if std::env::var("UPDATE_INSTRUCTIONS").is_ok_and(|value| value == "1") {
        let mut text = format!("{ABOUT}# {}\n", versions());
        for (name, now) in &measured {
            writeln!(text, "{name} {now:.0}").expect("memory");
        }
        std::fs::write(file(), text).expect("a file of the repository");
        return;
    }
    let written = std::fs::read_to_string(file()).expect("a file of the repository");
    let lines = written.lines().filter(|line| !line.starts_with('#'));
    let before: BTreeMap<&str, f64> = lines
        .map(|line| line.split_once(' ').expect("a name and a number"))
        .map(|(name, number)| (name, number.parse().expect("a number")))
        .collect();
    let names: Vec<_> = measured.keys().map(String::as_str).collect();
    assert_eq!(names, before.keys().copied().collect::<Vec<_>>(), "the cases of the file");
    let mut table = format!("{:<18} {:>9} {:>9} {:>8}\n", "operation", "before", "now", "change");
    let mut is_worse = false;
    let mut is_better = false;
    for (name, now) in &measured {
        let before = before[&**name];
        let change = (now / before - 1.0) * 100.0;
        let counts = (now - before).abs() > TOLERANCE;
        is_worse |= counts && change > TOLERANCE_PERCENT;
        is_better |= counts && change < -TOLERANCE_PERCENT;
        let mark = if counts && change.abs() > TOLERANCE_PERCENT { "  <--" } else { "" };
        writeln!(table, "{name:<18} {before:>9.0} {now:>9.0} {change:>+7.1}%{mark}")
            .expect("memory");
    }
    let told: Vec<_> = written.lines().filter(|line| line.starts_with('#')).collect();
    assert!(
        !is_worse && !is_better,
        "over {TOLERANCE_PERCENT} % of difference\n{table}\nnow {}; the file says:\n{}",
        versions(),
        told.join("\n")
    );
}
