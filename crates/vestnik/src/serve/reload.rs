//! A changed configuration is put in force while the server runs; a broken one is not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::sync::watch;
use vestnik_core::sign::KeyRing;
use vestnik_server::Tickets;

use super::Encryption;
use crate::config::{Acme, Config, KeySource, Sources, Warning};
use crate::systemd::{self, State};

/// What a file looks like from outside: a change of its content changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&metadata),
        })
    }
}

type Looks = BTreeMap<PathBuf, Option<Look>>;

/// A configuration, and how its files looked before it was read.
pub(super) struct Watched {
    pub(super) config: Config,
    pub(super) warnings: Vec<Warning>,
    read: Looks,
}

impl Watched {
    /// Reads the configuration: once to learn which files it has, and again after a look at them. So
    /// whatever changes after the look is a change, also while it is being read.
    pub(super) fn load(sources: &Sources) -> anyhow::Result<Self> {
        let (config, _) = Config::load(sources)?;
        let read = looks(sources, &config);
        let (config, warnings) = Config::load(sources)?;
        Ok(Self { config, warnings, read })
    }

    /// Loads the keys, which makes them on the first start: then their file is no change.
    pub(super) fn load_keys(&mut self) -> anyhow::Result<KeyRing> {
        let keys = self.config.security.load_keys()?;
        if let KeySource::File { path, generate: true } = &self.config.security.keys
            && let Some(look @ None) = self.read.get_mut(path)
        {
            *look = Look::at(path);
        }
        Ok(keys)
    }
}

/// Keeps a running server to its configuration.
pub(super) struct Reloader {
    sources: Sources,
    config: Config,
    encryption: Encryption,
    /// The certificate that is to be obtained automatically.
    wanted: watch::Sender<Option<Acme>>,
    set_log_level: super::SetLogLevel,
    /// How the files looked when they were read.
    read: Looks,
    /// How they looked last, if that was different: another look tells whether they are still being
    /// written.
    changing: Option<Looks>,
    /// Why the configuration could not be read last, so that it is said once.
    failure: Option<String>,
}

impl Reloader {
    pub(super) fn new(
        sources: Sources,
        watched: Watched,
        encryption: Encryption,
        wanted: watch::Sender<Option<Acme>>,
        set_log_level: super::SetLogLevel,
    ) -> Self {
        let Watched { config, read, .. } = watched;
        Self {
            sources,
            config,
            encryption,
            wanted,
            set_log_level,
            read,
            changing: None,
            failure: None,
        }
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The keys of session tickets.
    pub(super) fn tickets(&self) -> &Tickets {
        &self.encryption.tickets
    }

    /// Has a certificate that could not be obtained asked for at once.
    pub(super) fn retry_certificate(&self) {
        self.wanted.send_replace(self.config.acme.clone());
    }

    /// Looks at the files; once changes have settled, puts them in force. After a failure it tries
    /// each time: what is missing may come by itself.
    pub(super) fn look(&mut self, served: super::Served<'_>) {
        let now = looks(&self.sources, &self.config);
        if now == self.read && self.failure.is_none() {
            self.changing = None;
            return;
        }
        if now == self.read || self.changing.as_ref() == Some(&now) {
            self.reload(served, "a file has changed");
        } else {
            self.changing = Some(now);
        }
    }

    /// Reads everything again and puts it in force. A mistake anywhere changes nothing.
    pub(super) fn reload(&mut self, served: super::Served<'_>, cause: &'static str) {
        systemd::tell(State::Reloading);
        // Before reading: what changes meanwhile is found by the next look.
        self.read = looks(&self.sources, &self.config);
        self.changing = None;
        match self.load() {
            Ok((Watched { config, read, .. }, keys, options)) => {
                served.server.reload(options);
                if let Some(module) = served.module {
                    module.reload(&config, &keys);
                }
                self.failure = None;
                self.say(&config, cause);
                (self.set_log_level)(config.log.level);
                self.wanted.send_if_modified(|wanted| {
                    let before = std::mem::replace(wanted, config.acme.clone());
                    before != *wanted
                });
                self.config = config;
                self.read = read;
            }
            Err(error) => {
                let (text, _) = crate::failure::report(&error);
                if self.failure.as_ref() != Some(&text) {
                    tracing::error!(
                        cause,
                        "configuration not reloaded, the old one stays in force: {text}"
                    );
                }
                self.failure = Some(text);
            }
        }
        systemd::tell(State::Ready);
    }

    fn load(&self) -> anyhow::Result<(Watched, KeyRing, vestnik_server::Options)> {
        let mut watched = Watched::load(&self.sources)?;
        let keys = watched.load_keys()?;
        for warning in &watched.warnings {
            tracing::warn!("{warning}");
        }
        let options = super::options(&watched.config, keys.clone(), &self.encryption);
        Ok((watched, keys, options))
    }

    fn say(&self, config: &Config, cause: &'static str) {
        let changed = config.changed_live(&self.config).join(", ");
        let waiting = config.needs_restart(&self.config);
        tracing::info!(cause, changed, "configuration reloaded");
        if !waiting.is_empty() {
            let options = waiting.join(", ");
            tracing::warn!(options, "these options have changed and count from the next start");
        }
    }
}

/// The files of the configuration, and the folders that they were found in.
fn looks(sources: &Sources, config: &Config) -> Looks {
    let mut files = config.watched_files();
    files.extend(sources.files.iter().cloned());
    files.into_iter().map(|path| (path.clone(), Look::at(&path))).collect()
}
