//! Session tickets that survive a restart: clients come back without a full handshake, which for
//! 10,000 of them costs seconds of processor time.
//!
//! A ticket is `name 16 | nonce 12 | AES-256-GCM of the session` (RFC 5077 §4). Keys are kept in a
//! file of the data folder, change every six hours and are forgotten half a day after that.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;
use subtle::ConstantTimeEq as _;
use vestnik_core::Clock;

const NAME_LEN: usize = 16;
const KEY_LEN: usize = 32;
/// Tickets are made with a key for this time.
const CHANGED_AFTER_S: u64 = 6 * 3600;
/// A ticket is good for this time at least.
const LIFETIME_S: u32 = 12 * 3600;
/// As many keys as their times can make, and one for a clock that jumped.
const KEYS_MAX: usize = 4;

/// Why the file of the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TicketFileError {
    /// It cannot be read or written.
    #[error("the session ticket keys in {} cannot be kept", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

struct Key {
    name: [u8; NAME_LEN],
    secret: [u8; KEY_LEN],
    sealing: LessSafeKey,
    made_s: u64,
}

impl Key {
    fn new(name: [u8; NAME_LEN], secret: [u8; KEY_LEN], made_s: u64) -> Option<Self> {
        let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret).ok()?);
        Some(Self { name, secret, sealing, made_s })
    }
}

/// The keys of session tickets.
pub struct Tickets {
    path: Option<PathBuf>,
    clock: Clock,
    /// The newest first.
    keys: RwLock<Vec<Key>>,
    random: SystemRandom,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(***)")
    }
}

impl Tickets {
    /// Keys that end with the process.
    #[must_use]
    pub fn in_memory(clock: Clock) -> Self {
        Self { path: None, clock, keys: RwLock::default(), random: SystemRandom::new() }
    }

    /// The keys in `path`, readable by its owner only. What cannot be understood there is replaced:
    /// it costs the clients a full handshake each, nothing else. Call [`Tickets::renew`] next.
    #[must_use]
    pub fn open(path: PathBuf, clock: Clock) -> Self {
        let keys = match read(&path) {
            Ok(keys) => keys,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, %path, "session ticket keys are made anew");
                Vec::new()
            }
        };
        let random = SystemRandom::new();
        Self { path: Some(path), clock, keys: RwLock::new(keys), random }
    }

    /// Makes a new key when it is time, and forgets old ones. Cheap when it is not; call it now and
    /// then, from where a file may be written.
    ///
    /// # Errors
    /// `NoRandomness`: nothing changed. `File`: the keys are in force, but end with the process.
    pub fn renew(&self) -> Result<(), TicketFileError> {
        let now_s = self.clock.unix_s();
        let is_due = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            keys.first().is_none_or(|key| now_s.abs_diff(key.made_s) >= CHANGED_AFTER_S)
        };
        if !is_due {
            return Ok(());
        }
        let (mut name, mut secret) = ([0; NAME_LEN], [0; KEY_LEN]);
        self.random.fill(&mut name).map_err(|_| TicketFileError::NoRandomness)?;
        self.random.fill(&mut secret).map_err(|_| TicketFileError::NoRandomness)?;
        let key = Key::new(name, secret, now_s).ok_or(TicketFileError::NoRandomness)?;
        let text = {
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.insert(0, key);
            keys.retain(|key| now_s.abs_diff(key.made_s) < CHANGED_AFTER_S + u64::from(LIFETIME_S));
            keys.truncate(KEYS_MAX);
            text_of(&keys)
        };
        let Some(path) = &self.path else { return Ok(()) };
        write(path, &text).map_err(|error| TicketFileError::File { path: path.clone(), error })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        key.sealing
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&key.name),
                &mut sealed,
            )
            .ok()?;
        Some([key.name.as_slice(), &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.iter().find(|key| bool::from(key.name.ct_eq(name)))?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.sealing.open_in_place(nonce, Aad::from(name), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

/// One line for each key: when it was made, its name and itself in hex.
fn text_of(keys: &[Key]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    keys.iter()
        .map(|key| format!("{} {} {}\n", key.made_s, hex(&key.name), hex(&key.secret)))
        .collect()
}

fn read(path: &Path) -> io::Result<Vec<Key>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not written by this program");
    let text = std::fs::read_to_string(path)?;
    text.lines().take(KEYS_MAX).map(|line| key_of(line).ok_or_else(malformed)).collect()
}

fn key_of(line: &str) -> Option<Key> {
    let mut parts = line.split(' ');
    let made_s = parts.next()?.parse().ok()?;
    let (name, secret) = (from_hex(parts.next()?)?, from_hex(parts.next()?)?);
    parts.next().is_none().then(|| Key::new(name, secret, made_s)).flatten()
}

fn from_hex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let mut bytes = [0; LENGTH];
    if text.len() != 2 * LENGTH {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Writes beside the file first, so that nobody ever sees a part of it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tickets_outlive_the_process_and_two_changes_of_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.key");
        let clock = Clock::manual(1_000_000);
        let before = Tickets::open(path.clone(), clock.clone());
        before.renew().unwrap();
        let ticket = before.encrypt(b"session").unwrap();
        let after = Tickets::open(path.clone(), clock.clone());
        for hours in [6, 6] {
            assert_eq!(after.decrypt(&ticket).unwrap(), b"session");
            clock.advance(Duration::from_secs(hours * 3600));
            after.renew().unwrap();
        }
        assert_eq!(after.decrypt(&ticket).unwrap(), b"session");
        clock.advance(Duration::from_secs(6 * 3600));
        after.renew().unwrap();
        assert_eq!(after.decrypt(&ticket), None, "its key is gone");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_changed_ticket_or_file_is_refused_without_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.key");
        std::fs::write(&path, "no keys at all").unwrap();
        let tickets = Tickets::open(path.clone(), Clock::manual(5));
        assert_eq!(tickets.encrypt(b"session"), None);
        tickets.renew().unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        assert!(Tickets::open(path, Clock::manual(5)).decrypt(&ticket).is_some());
    }

    #[test]
    fn keys_that_cannot_be_kept_are_used_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let tickets = Tickets::open(folder.path().join("none/tickets.key"), Clock::manual(5));
        assert!(matches!(tickets.renew(), Err(TicketFileError::File { .. })));
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt(&ticket).unwrap(), b"session");
    }
}
