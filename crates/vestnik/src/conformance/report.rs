//! Results of a run: a table for people, JUnit XML for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::language::Fixture;
use super::play::{Broken, Fault};

/// How one fixture went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed(Broken),
    /// Not played, and why.
    Skipped(&'static str),
}

/// A fixture with its outcome.
#[derive(Debug)]
pub(crate) struct Played<'a> {
    pub(crate) fixture: &'a Fixture,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

/// Numbers of items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

/// The fixtures of each item.
fn by_item<'a>(played: &'a [Played<'a>]) -> BTreeMap<&'a str, Vec<&'a Played<'a>>> {
    let mut items: BTreeMap<&str, Vec<&Played<'_>>> = BTreeMap::new();
    for one in played {
        for item in &one.fixture.items {
            items.entry(item).or_default().push(one);
        }
    }
    items
}

/// The worst outcome of an item: one broken fixture breaks it, one played shows it.
fn verdict<'a>(fixtures: &[&'a Played<'a>]) -> &'a Played<'a> {
    let rank = |one: &Played<'_>| match one.outcome {
        Outcome::Failed(_) => 0,
        Outcome::Passed => 1,
        Outcome::Skipped(_) => 2,
    };
    fixtures.iter().copied().min_by_key(|one| rank(one)).unwrap_or(fixtures[0])
}

/// Counts items, each once.
pub(crate) fn counts(played: &[Played<'_>]) -> Counts {
    let mut counts = Counts::default();
    for fixtures in by_item(played).values() {
        match verdict(fixtures).outcome {
            Outcome::Passed => counts.passed += 1,
            Outcome::Failed(_) => counts.failed += 1,
            Outcome::Skipped(_) => counts.skipped += 1,
        }
    }
    counts
}

/// The table: an item per line, below a failed one what was expected and received.
pub(crate) fn table(played: &[Played<'_>]) -> String {
    let items = by_item(played);
    let width = items.keys().map(|item| item.len()).max().unwrap_or_default();
    let mut out = String::new();
    for (item, fixtures) in &items {
        let worst = verdict(fixtures);
        let title = &worst.fixture.title;
        let line = match &worst.outcome {
            Outcome::Passed => format!("{item:width$}  pass  {title}"),
            Outcome::Skipped(why) => format!("{item:width$}  skip  {title} ({why})"),
            Outcome::Failed(broken) => {
                let reason = reason(worst.fixture, broken);
                format!("{item:width$}  FAIL  {title}\n{}", indented(&reason, width + 8))
            }
        };
        out.push_str(&line);
        out.push('\n');
    }
    let counts = counts(played);
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "\n{} items: {} passed, {} failed, {} skipped; {} fixtures",
        items.len(),
        counts.passed,
        counts.failed,
        counts.skipped,
        played.len(),
    );
    out
}

fn reason(fixture: &Fixture, broken: &Broken) -> String {
    let place = format!("{}:{}", fixture.file, broken.line);
    let origin = &fixture.origin;
    match &broken.fault {
        Fault::Mismatch { expected, received } => {
            format!("{place} ({origin})\nexpected {expected}\nreceived {received}")
        }
        other => format!("{place} ({origin})\n{other}"),
    }
}

fn indented(text: &str, by: usize) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("{:by$}{line}", "")).collect();
    lines.join("\n")
}

/// JUnit XML: a test case for each item of each fixture.
pub(crate) fn junit(played: &[Played<'_>]) -> String {
    let cases: usize = played.iter().map(|one| one.fixture.items.len()).sum();
    let of = |is: fn(&Outcome) -> bool| -> usize {
        let these = played.iter().filter(|one| is(&one.outcome));
        these.map(|one| one.fixture.items.len()).sum()
    };
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"vestnik conformance\" \
         tests=\"{cases}\" failures=\"{}\" skipped=\"{}\">\n",
        of(|outcome| matches!(outcome, Outcome::Failed(_))),
        of(|outcome| matches!(outcome, Outcome::Skipped(_))),
    );
    for one in played {
        let class = escaped(one.fixture.file.trim_end_matches(".fixture"));
        for item in &one.fixture.items {
            let inside = match &one.outcome {
                Outcome::Passed => String::new(),
                Outcome::Skipped(why) => format!("<skipped message=\"{}\"/>", escaped(why)),
                Outcome::Failed(broken) => format!(
                    "<failure message=\"{}\">{}</failure>",
                    escaped(&broken.fault.to_string()),
                    escaped(&reason(one.fixture, broken))
                ),
            };
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "  <testcase classname=\"{class}\" name=\"{item} {}\" time=\"{:.3}\">{inside}</testcase>",
                escaped(&one.fixture.title),
                one.took.as_secs_f64(),
            );
        }
    }
    out.push_str("</testsuite>\n");
    out
}

/// Text for XML: markup escaped, characters that XML has no form for replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(letter),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ if letter.is_control() => out.push('\u{fffd}'),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(items: &[&str]) -> Fixture {
        Fixture {
            file: "x.fixture".into(),
            items: items.iter().map(|&item| item.into()).collect(),
            title: "a <title>".into(),
            origin: "observed: push server 2.0; queue-server.md §4.3".into(),
            only: None,
            steps: Vec::new(),
        }
    }

    #[test]
    fn an_item_fails_with_any_of_its_fixtures_and_is_counted_once() {
        let (good, bad, idle) =
            (fixture(&["Q-001", "Q-002"]), fixture(&["Q-002"]), fixture(&["Q-003"]));
        let fault = Fault::Mismatch { expected: "1".into(), received: "\"2\"\u{1}".into() };
        let one = |fixture, outcome| Played { fixture, outcome, took: Duration::ZERO };
        let played = [
            one(&good, Outcome::Passed),
            one(&bad, Outcome::Failed(Broken { line: 7, fault })),
            one(&idle, Outcome::Skipped("slow")),
        ];
        assert_eq!(counts(&played), Counts { passed: 1, failed: 1, skipped: 1 });
        let table = table(&played);
        assert!(table.contains("Q-001  pass  a <title>"), "{table}");
        assert!(table.contains("x.fixture:7 (observed"), "{table}");
        assert!(table.contains("3 items: 1 passed, 1 failed, 1 skipped; 3 fixtures"), "{table}");
        let xml = junit(&played);
        assert!(xml.contains("tests=\"4\" failures=\"1\" skipped=\"1\""), "{xml}");
        assert!(xml.contains("received &quot;2&quot;\u{fffd}"), "{xml}");
    }
}
