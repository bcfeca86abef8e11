//! The bytes of the file with times of last seen.
//!
//! ```text
//! file    "vestnikL" version:u32 count:u64 user… crc:u32, the CRC over all before it
//! user    space:8 bytes number:i64 last_ms:u64
//! ```
//! Numbers are little endian, the CRC is CRC-32 (IEEE).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use vestnik_core::{User, UserId, UserSpace};

const MAGIC: &[u8; 8] = b"vestnikL";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 20;
const USER_BYTES: usize = 24;
const CRC_BYTES: usize = 4;

/// The file with times of last seen cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It is damaged, and cannot be moved out of the way.
    #[error("cannot set the damaged file {} aside", path.display())]
    SetAside {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// So many users; 0 without a file.
    Users(usize),
    /// A damaged file, which is kept under this name; nobody was seen.
    SetAside(PathBuf),
}

pub(super) struct Found {
    pub(super) users: Vec<(User, u64)>,
    pub(super) outcome: Loaded,
}

pub(super) fn read(path: &Path) -> Result<Found, LoadError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Found { users: Vec::new(), outcome: Loaded::Users(0) });
        }
        Err(error) => return Err(LoadError::Read { path: path.to_owned(), error }),
    };
    if let Some(users) = decode(&bytes) {
        let outcome = Loaded::Users(users.len());
        return Ok(Found { users, outcome });
    }
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside)
        .map_err(|error| LoadError::SetAside { path: path.to_owned(), error })?;
    Ok(Found { users: Vec::new(), outcome: Loaded::SetAside(aside) })
}

fn decode(bytes: &[u8]) -> Option<Vec<(User, u64)>> {
    let (content, crc) = bytes.split_at_checked(bytes.len().checked_sub(CRC_BYTES)?)?;
    let (head, users) = content.split_at_checked(HEAD_BYTES)?;
    let count = u64::from_le_bytes(head[12..].try_into().ok()?);
    let is_whole = crc == crc32fast::hash(content).to_le_bytes()
        && head.starts_with(MAGIC)
        && head[8..12] == VERSION.to_le_bytes()
        && users.len() as u64 == count.checked_mul(USER_BYTES as u64)?;
    if !is_whole {
        return None;
    }
    let user = |bytes: &[u8]| {
        let space = UserSpace::from_bytes(bytes[..8].try_into().ok()?);
        let id = UserId::new(i64::from_le_bytes(bytes[8..16].try_into().ok()?))?;
        Some((User { space, id }, u64::from_le_bytes(bytes[16..].try_into().ok()?)))
    };
    users.chunks_exact(USER_BYTES).map(user).collect()
}

/// Writes all users as one step: into a file beside it, to the disk, then over the one before it.
pub(super) fn write(path: &Path, users: &[(User, u64)]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + users.len() * USER_BYTES + CRC_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(users.len() as u64).to_le_bytes());
    for (user, last_ms) in users {
        bytes.extend_from_slice(user.space.as_bytes());
        bytes.extend_from_slice(&user.id.number().to_le_bytes());
        bytes.extend_from_slice(&last_ms.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
