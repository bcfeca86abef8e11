//! Configurations that somebody mangled: files of the fuzzer's corpus, changed at random from a
//! fixed seed, are loaded or refused, and never end the program.
//!
//! An ordinary test instead of a target of the fuzzer, because the parser is no library.

use super::{Config, Sources};

/// Changed copies of each file; enough to show what a slip in the parser would.
const COPIES: usize = 150;

/// Pieces that mean something in these files.
const PIECES: &[&str] = &[
    "\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    "=",
    ":",
    "-1",
    "0",
    "\\u0000",
    "99999999999999999999",
    "null",
    "true",
    "[server]",
    "listen",
    "\"port\"",
    "\"servers\"",
    "9e999",
    "\n",
    "é",
    "\u{0}",
    "/",
    "..",
];

/// A generator of random numbers (xorshift), the same ones in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (limit.max(1) as u64)).unwrap_or(0)
    }
}

/// `bytes` with one to three changes.
fn mangled(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let (at, end) = (random.below(bytes.len()), random.below(bytes.len()));
        let (at, end) = (at.min(end), at.max(end));
        match random.below(5) {
            0 => bytes.truncate(end),
            1 => drop(bytes.drain(at..end)),
            2 => bytes = [&bytes[..end], &bytes[at..]].concat(),
            3 => {
                let piece = PIECES[random.below(PIECES.len())].bytes();
                drop(bytes.splice(at..at, piece));
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    bytes
}

#[test]
fn mangled_configurations_are_loaded_or_refused_with_the_name_of_their_file() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    for (kind, name) in [("config_toml", "vestnik.toml"), ("config_json", "push-server.json")] {
        let path = folder.path().join(name);
        for input in std::fs::read_dir(corpus.join(kind)).expect("each kind has a corpus") {
            let whole = std::fs::read(input.expect("it is read").path()).expect("it is read");
            for copy in 0..COPIES {
                let bytes = if copy == 0 { whole.clone() } else { mangled(&whole, &mut random) };
                std::fs::write(&path, bytes).expect("it is written");
                let sources = Sources {
                    files: vec![path.clone()],
                    data_dir: "data".into(),
                    ..Sources::default()
                };
                if let Err(errors) = Config::load(&sources) {
                    assert!(errors.to_string().contains(name), "{errors}");
                }
            }
        }
    }
}
