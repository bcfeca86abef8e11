//! Figures and how they are shown: a table for people, JSON for programs.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

/// Which side of the goal is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Lower,
    Higher,
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// A value in the figure's unit.
    Value(f64),
    /// A multiple of the bare-socket baseline of the same run.
    TimesFloor(f64),
    /// Nothing: it is shown.
    Shown,
}

/// The unit in which memory grows.
pub(super) const GROWTH: &str = "% in 10 minutes";

/// One measured figure.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) name: Cow<'static, str>,
    pub(super) unit: &'static str,
    /// What it means, in one sentence.
    pub(super) about: &'static str,
    pub(super) better: Better,
    pub(super) goal: Goal,
    pub(super) samples: Vec<f64>,
    /// The same, measured with a bare loop over plain sockets in the same run.
    pub(super) floor: Vec<f64>,
}

impl Figure {
    /// A figure without samples.
    pub(super) fn new(
        name: impl Into<Cow<'static, str>>,
        unit: &'static str,
        about: &'static str,
        better: Better,
        goal: Goal,
    ) -> Self {
        Self {
            name: name.into(),
            unit,
            about,
            better,
            goal,
            samples: Vec::new(),
            floor: Vec::new(),
        }
    }

    /// With one more sample.
    pub(super) fn with(mut self, sample: f64) -> Self {
        self.samples.push(sample);
        self
    }

    /// Whether it is of the processor time or the memory of the server, which only processes of this machine
    /// tell.
    pub(super) fn is_of_processes(&self) -> bool {
        self.unit.starts_with("µs CPU") || self.unit == GROWTH || self.is_of_memory()
    }

    /// Whether it is of the memory of a server.
    pub(super) fn is_of_memory(&self) -> bool {
        ["MB", "bytes"].contains(&self.unit)
    }

    fn ratio(&self) -> Option<f64> {
        Some(median(&self.samples)? / median(&self.floor)?).filter(|ratio| ratio.is_finite())
    }

    /// Whether the goal is reached; `None` without a measurement.
    fn is_reached(&self) -> Option<bool> {
        let (value, goal) = match self.goal {
            Goal::Value(goal) => (median(&self.samples)?, goal),
            Goal::TimesFloor(goal) => (self.ratio()?, goal),
            Goal::Shown => return None,
        };
        Some(match self.better {
            Better::Lower => value <= goal,
            Better::Higher => value >= goal,
        })
    }

    fn goal_text(&self) -> String {
        let sign = match self.better {
            Better::Lower => "≤",
            Better::Higher => "≥",
        };
        match self.goal {
            Goal::Value(goal) => format!("{sign} {}", number(goal)),
            Goal::TimesFloor(goal) => format!("{sign} {} × bare", number(goal)),
            Goal::Shown => String::new(),
        }
    }
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(samples: &[f64]) -> Option<f64> {
    sorted(samples).get(samples.len() / 2).copied()
}

/// A number with three significant digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Prints the table to standard output. Returns whether every goal was reached.
pub(super) fn print_table(figures: &[Figure]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let mut all = true;
    let names: Vec<_> =
        figures.iter().map(|figure| format!("{}, {}", figure.name, figure.unit)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    writeln!(
        out,
        "{:<width$} {:>10} {:>10} {:>10} {:>8}  {:<16} ",
        "figure", "min", "median", "max", "× bare", "must"
    )
    .context("cannot write")?;
    for (figure, name) in figures.iter().zip(names) {
        let sorted = sorted(&figure.samples);
        let show = |value: Option<&f64>| value.map_or("–".to_owned(), |value| number(*value));
        let verdict = match figure.is_reached() {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        all &= figure.is_reached() != Some(false);
        writeln!(
            out,
            "{name:<width$} {:>10} {:>10} {:>10} {:>8}  {:<16} {verdict}",
            show(sorted.first()),
            show(sorted.get(sorted.len() / 2)),
            show(sorted.last()),
            figure.ratio().map_or_else(String::new, number),
            figure.goal_text(),
        )
        .context("cannot write")?;
    }
    writeln!(out).context("cannot write")?;
    for (number, figure) in figures.iter().enumerate() {
        // Figures of one kind have one explanation.
        if figures[..number].iter().all(|before| before.about != figure.about) {
            writeln!(out, "  {}: {}", figure.name, figure.about).context("cannot write")?;
        }
    }
    Ok(all)
}

/// Prints all figures as one JSON document.
pub(super) fn print_json(figures: &[Figure]) -> anyhow::Result<bool> {
    let list: Vec<_> = figures
        .iter()
        .map(|figure| {
            json!({
                "name": figure.name,
                "unit": figure.unit,
                "about": figure.about,
                "samples": figure.samples,
                "median": median(&figure.samples),
                "bare": figure.floor,
                "ratio": figure.ratio(),
                "goal": figure.goal_text(),
                "reached": figure.is_reached(),
            })
        })
        .collect();
    let text = serde_json::to_string_pretty(&list).context("cannot write JSON")?;
    writeln!(std::io::stdout(), "{text}").context("cannot write")?;
    Ok(figures.iter().all(|figure| figure.is_reached() != Some(false)))
}

/// Delays of messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<u32>);

impl Latencies {
    /// Samples kept; further ones are not.
    const SAMPLES_MAX: usize = 10_000_000;

    /// Adds one, in whole microseconds.
    pub(super) fn add(&mut self, delay: Duration) {
        if self.0.len() < Self::SAMPLES_MAX {
            self.0.push(u32::try_from(delay.as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The delay in milliseconds that `share` of all stay below.
    pub(super) fn percentile_ms(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list of at most ten million"
        )]
        let place = (self.0.len() as f64 * share) as usize;
        let place = place.min(self.0.len().saturating_sub(1));
        self.0.get(place).map_or(f64::NAN, |delay| f64::from(*delay) / 1000.0)
    }
}

/// `time` divided over `count` operations, in microseconds.
pub(super) fn micros_each(time: Duration, count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
    let count = count.max(1) as f64;
    time.as_secs_f64() * 1e6 / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_delays() {
        let mut latencies = Latencies::default();
        for delay in (1..=100).rev() {
            latencies.add(Duration::from_millis(delay));
        }
        assert_eq!(latencies.percentile_ms(0.5).round(), 51.0);
        assert_eq!(latencies.percentile_ms(0.99).round(), 100.0);
    }

    #[test]
    fn a_goal_is_a_value_or_a_multiple_of_the_floor() {
        let mut figure = Figure::new("f", "µs", "a.", Better::Lower, Goal::TimesFloor(1.2));
        assert_eq!(figure.is_reached(), None, "nothing was measured");
        figure.samples = vec![11.0, 12.0, 13.0];
        figure.floor = vec![10.0];
        assert_eq!(figure.is_reached(), Some(true));
        figure.floor = vec![9.0];
        assert_eq!(figure.is_reached(), Some(false));
    }
}
