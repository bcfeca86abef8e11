//! Processes that end with the one that started them, however that ends.

use std::process::Command;

use crate::failure::Failure;

/// The hidden argument of a command that may be started so.
#[derive(Debug, clap::Args)]
pub(crate) struct ParentArgs {
    /// End when this process ends, which has started this one.
    #[arg(long, value_name = "PID", hide = true)]
    with_parent: Option<u32>,
}

/// Makes a command of this program that ends with this process. It must be started by a thread that lives
/// as long as it.
pub(crate) fn ends_with_this_one(command: &mut Command) {
    command.arg("--with-parent").arg(std::process::id().to_string());
}

impl ParentArgs {
    /// Has the system end this process, in order, when the one that started it is no more.
    #[cfg(target_os = "linux")]
    pub(crate) fn end_with_it(&self) -> anyhow::Result<()> {
        use anyhow::Context as _;
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};

        let Some(parent) = self.with_parent else { return Ok(()) };
        set_parent_process_death_signal(Some(Signal::TERM))
            .context("cannot ask to end with the process that started this one")?;
        // It may have ended before that.
        let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        anyhow::ensure!(now == Some(parent), gone());
        Ok(())
    }

    /// Other systems have no such wish.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn end_with_it(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn gone() -> Failure {
    Failure::new("the process that started this one is gone", "start this one by itself")
}
