//! How many files the system lets this process open: each connection is one.

use super::layer::Rank;
use super::{Build, Limits};

/// The soft limit of open files (`ulimit -n`); `None` where the system does not say, or has none.
pub(crate) fn open_files_max() -> Option<u64> {
    of_limits(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// The soft limit in a text of Linux' `/proc/<pid>/limits`.
fn of_limits(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Build<'_> {
    /// Compares what was asked for with what the system allows. The default is only compared by
    /// `vestnik check`: it is meant for everybody.
    pub(super) fn compare_open_files(&mut self, limits: &Limits) {
        /// Listeners, files of the history and the like.
        const OTHERS: u64 = 100;
        let wanted = limits.connections as u64 + OTHERS;
        let allowed = open_files_max().filter(|allowed| *allowed < wanted);
        if let Some(allowed) = allowed
            && self.layers.rank("limits.connections") > Rank::Default
        {
            let text = format!(
                "the system allows only {allowed} open files, and each connection is one: set LimitNOFILE={wanted} in the service (`ulimit -n`), or a lower limit here"
            );
            self.warn("limits.connections", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read_from_what_linux_says() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             63434                63434                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(of_limits(text), Some(1024));
        assert_eq!(
            of_limits("Max open files            unlimited            unlimited   files"),
            None
        );
        assert_eq!(of_limits(""), None);
    }
}
