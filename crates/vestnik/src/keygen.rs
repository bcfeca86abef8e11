//! `vestnik keygen`, and the file that holds a generated signature key.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use vestnik_core::Secret;
use vestnik_core::sign::Algorithm;

/// Characters of a key: they survive JSON, PHP, shells and forms without quoting.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Length of a generated key: 64 characters are 380 bits.
const KEY_CHARACTERS: usize = 64;

/// The longest content of a key file that is read, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Arguments of `vestnik keygen`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeygenArgs {
    /// Algorithm the key will be used with; the key itself does not depend on it.
    #[arg(long, default_value = "sha1", value_name = "NAME")]
    pub(crate) algorithm: Algorithm,
    /// Characters of the key.
    #[arg(long, default_value_t = KEY_CHARACTERS as u16, value_parser = clap::value_parser!(u16).range(32..=1024))]
    pub(crate) length: u16,
    /// Write the key to this file, readable by its owner only, instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the file if it exists: clients with ids of the old key are refused from then on.
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}

/// Makes a key and prints or writes it.
pub(crate) fn run(args: &KeygenArgs) -> anyhow::Result<()> {
    print_key(args, &mut std::io::stdout().lock(), &mut std::io::stderr().lock())
}

fn print_key(
    args: &KeygenArgs,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> anyhow::Result<()> {
    let key = random_key(usize::from(args.length))?;
    match &args.output {
        None => writeln!(out, "{}", key.expose())?,
        Some(file) => {
            let existing = if args.force { Existing::Replace } else { Existing::Keep };
            write_key(file, &key, existing)?;
            writeln!(notes, "key written to {}", file.display())?;
        }
    }
    let name = args.algorithm;
    writeln!(notes, "set the site's option signature_key to it and signature_algo to {name}")?;
    if args.algorithm != Algorithm::default() {
        writeln!(notes, "and security.algorithm = \"{name}\" in vestnik.toml")?;
    }
    Ok(())
}

/// Why a key file cannot be used; the administrator can fix each.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    /// There is none.
    #[error("key file {} does not exist", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("key file {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Every user of the machine can read or change it.
    #[error("key file {} is open to every user of this machine (mode {mode:o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds no key.
    #[error("key file {} {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with the content.
        reason: &'static str,
    },
    /// It cannot be written.
    #[error("key file {} cannot be written", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It must not be overwritten.
    #[error("key file {} exists", .0.display())]
    Exists(PathBuf),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(String),
}

impl KeyFileError {
    /// What the administrator can do.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Missing(path) => {
                format!(
                    "name the server's own key with --config, --data-dir or --key-file; or, for a new \
                     server, make one with `vestnik keygen --output {}`",
                    path.display()
                )
            }
            Self::Unreadable { path, .. } => {
                format!("the user who runs vestnik must be able to read {}", path.display())
            }
            Self::Exposed { path, .. } => format!(
                "`chmod 600 {}`, and make a new key if others may have read it",
                path.display()
            ),
            Self::Malformed { path, .. } => {
                format!("{} must hold the key and nothing else", path.display())
            }
            Self::Unwritable { path, .. } => format!(
                "the user who runs vestnik must be able to write to {}; or choose another folder with --data-dir",
                path.parent().unwrap_or(path).display()
            ),
            Self::Exists(_) => {
                "--force replaces it; clients with ids of the old key are refused from then on"
                    .into()
            }
            Self::NoRandomness(_) => "check the system's random device".into(),
        }
    }
}

/// Fills `bytes` with random ones of the system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), KeyFileError> {
    getrandom::fill(bytes).map_err(|error| KeyFileError::NoRandomness(error.to_string()))
}

/// A key of `length` random characters, each equally likely.
fn random_key(length: usize) -> Result<Secret<String>, KeyFileError> {
    // Bytes from here on would make the first characters of the alphabet likelier.
    const FAIR_BYTES: usize = 256 - 256 % ALPHABET.len();
    let mut key = String::with_capacity(length);
    while key.len() < length {
        let mut bytes = [0; 64];
        fill_random(&mut bytes)?;
        let fair = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < FAIR_BYTES);
        let characters = fair.map(|byte| char::from(ALPHABET[byte % ALPHABET.len()]));
        key.extend(characters.take(length - key.len()));
    }
    Ok(Secret::new(key))
}

/// Reads the key in `path`.
///
/// # Errors
/// `Missing`, `Unreadable`, `Exposed`, `Malformed`.
pub(crate) fn load_key(path: &Path) -> Result<Secret<String>, KeyFileError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        _ => KeyFileError::Unreadable { path: path.to_owned(), source },
    };
    let malformed = |reason| KeyFileError::Malformed { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(malformed("is not a file"));
    }
    refuse_exposed(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(malformed("is too large for a key"));
    }
    let text = String::from_utf8(bytes).map_err(|_| malformed("is not text"))?;
    match text.trim() {
        "" => Err(malformed("is empty")),
        key if key.contains(['\n', '\r', '\0']) => Err(malformed("has more than one line")),
        key => Ok(Secret::new(key.to_owned())),
    }
}

/// Reads the key in `path`, or makes one and keeps it there if there is no such file.
///
/// Two processes that start at once end with the same key: whoever comes second reads the first's.
///
/// # Errors
/// Those of [`load_key`] but `Missing`, and `Unwritable`, `NoRandomness`.
pub(crate) fn load_or_create_key(path: &Path) -> Result<Secret<String>, KeyFileError> {
    match load_key(path) {
        Err(KeyFileError::Missing(_)) => {}
        loaded => return loaded,
    }
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        make_folder(folder)
            .map_err(|source| KeyFileError::Unwritable { path: path.to_owned(), source })?;
    }
    let key = random_key(KEY_CHARACTERS)?;
    match write_key(path, &key, Existing::Keep) {
        Ok(()) => Ok(key),
        Err(KeyFileError::Exists(_)) => load_key(path),
        Err(error) => Err(error),
    }
}

/// What to do with a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

/// Writes `key` to `path` so that nobody ever sees a part of it: beside it first, then renamed.
fn write_key(path: &Path, key: &Secret<String>, existing: Existing) -> Result<(), KeyFileError> {
    let unwritable = |source| KeyFileError::Unwritable { path: path.to_owned(), source };
    let beside = beside(path).ok_or_else(|| KeyFileError::Malformed {
        path: path.to_owned(),
        reason: "is not a file name",
    })?;
    let written = write_private(&beside, format!("{}\n", key.expose()).as_bytes());
    let moved = written.and_then(|()| match existing {
        Existing::Replace => std::fs::rename(&beside, path),
        // Unlike a renaming, a link never replaces a file.
        Existing::Keep => std::fs::hard_link(&beside, path).or_else(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Err(error),
            _ if path.exists() => Err(std::io::ErrorKind::AlreadyExists.into()),
            // File systems without links.
            _ => std::fs::rename(&beside, path),
        }),
    });
    // After a renaming there is nothing left to remove, and after an error this is all we can do.
    let _ = std::fs::remove_file(&beside);
    moved.and_then(|()| sync_folder(path)).map_err(|source| match (source.kind(), existing) {
        (std::io::ErrorKind::AlreadyExists, Existing::Keep) => {
            KeyFileError::Exists(path.to_owned())
        }
        _ => unwritable(source),
    })
}

/// Where a file is written before it takes the place of `path`.
fn beside(path: &Path) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    Some(path.with_file_name(name))
}

/// Writes a new file that only its owner can read, down to the disk.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Left by a process of the same number that was killed; a new file has the right permissions.
    let _ = std::fs::remove_file(path);
    let mut file = create_private(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Puts `bytes` into `path`, a file that only its owner can read, so that nobody ever sees a part of them;
/// whatever was there is replaced. Makes the folder.
///
/// # Errors
/// What the system says; what was there stays.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = beside(path).ok_or(std::io::ErrorKind::InvalidFilename)?;
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let moved = write_private(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    if moved.is_err() {
        // It may not have been made at all.
        let _ = std::fs::remove_file(&beside);
    }
    moved.and_then(|()| sync_folder(path))
}

#[cfg(unix)]
fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).create_new(true).open(path)
}

/// Makes the name of `path` survive a power loss: a site may already know the key then.
#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(unix)]
pub(crate) fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)
}

#[cfg(not(unix))]
pub(crate) fn make_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).create(folder)
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 == 0 {
        return Ok(());
    }
    Err(KeyFileError::Exposed { path: path.to_owned(), mode })
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: &std::fs::Metadata) -> Result<(), KeyFileError> {
    Ok(())
}

/// Two random channel ids, for `vestnik sign --random`.
pub(crate) fn random_ids() -> anyhow::Result<[[u8; 16]; 2]> {
    let mut ids = [[0; 16]; 2];
    for id in &mut ids {
        fill_random(id).context("a channel id is random")?;
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(output: Option<PathBuf>, force: bool) -> KeygenArgs {
        KeygenArgs { algorithm: Algorithm::Sha1, length: 64, output, force }
    }

    #[cfg(unix)]
    fn mode_of(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt as _;
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[cfg(unix)]
    fn set_mode(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_printed_key_is_64_letters_and_digits_and_new_each_time() {
        let print = || {
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            print_key(&args(None, false), &mut out, &mut notes).unwrap();
            String::from_utf8(out).unwrap()
        };
        let (one, other) = (print(), print());
        assert_eq!(one.len(), 65);
        assert!(one.trim_end().bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_ne!(one, other);
    }

    #[cfg(unix)]
    #[test]
    fn a_written_key_is_private_and_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let write = |force| {
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            let result = print_key(&args(Some(file.clone()), force), &mut out, &mut notes);
            assert!(out.is_empty(), "a key that goes to a file is not printed");
            result
        };
        write(false).unwrap();
        let first = load_key(&file).unwrap();
        assert_eq!(mode_of(&file), 0o600);
        assert!(write(false).unwrap_err().to_string().ends_with("exists"));
        assert_eq!(load_key(&file).unwrap(), first);
        write(true).unwrap();
        assert_ne!(load_key(&file).unwrap(), first);
        assert_eq!(mode_of(&file), 0o600);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing is left beside it");
    }

    #[cfg(unix)]
    #[test]
    fn a_missing_key_is_made_once_with_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data/signature.key");
        let made = load_or_create_key(&file).unwrap();
        assert_eq!(mode_of(&file), 0o600);
        assert_eq!(load_or_create_key(&file).unwrap(), made);
    }

    #[test]
    fn processes_that_start_at_once_share_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signature.key");
        let first = random_key(64).unwrap();
        write_key(&file, &first, Existing::Keep).unwrap();
        let second = random_key(64).unwrap();
        assert!(matches!(write_key(&file, &second, Existing::Keep), Err(KeyFileError::Exists(_))));
        assert_eq!(load_or_create_key(&file).unwrap(), first);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_everybody_can_read_is_refused_with_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        set_mode(&file, 0o644);
        let error = load_or_create_key(&file).unwrap_err();
        assert!(matches!(error, KeyFileError::Exposed { mode: 0o644, .. }), "{error}");
        assert!(error.hint().contains("chmod 600"));
        set_mode(&file, 0o640);
        assert_eq!(load_key(&file).unwrap().expose(), "0123456789abcdef0123456789abcdef");
    }

    #[test]
    fn an_unusable_place_is_told_apart_from_a_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plain");
        std::fs::write(&file, "").unwrap();
        let below = file.join("signature.key");
        let error = load_or_create_key(&below).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Unwritable { .. } | KeyFileError::Unreadable { .. }),
            "{error}"
        );
        assert!(matches!(load_key(folder.path()), Err(KeyFileError::Malformed { .. })));
        assert!(matches!(load_key(&folder.path().join("no")), Err(KeyFileError::Missing(_))));
    }

    #[cfg(unix)]
    #[test]
    fn content_that_is_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        for content in [b"".as_slice(), b" \n", b"one\ntwo\n", b"\xff\xfe", &[b'a'; 65_537]] {
            std::fs::write(&file, content).unwrap();
            set_mode(&file, 0o600);
            assert!(matches!(load_key(&file), Err(KeyFileError::Malformed { .. })));
        }
    }
}
