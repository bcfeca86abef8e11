//! What must hold for any bytes in a history file. Shared by the fuzzer and by the test that replays
//! the corpus.

use vestnik_hub::engine::fuzzing;

/// Name and check of a target.
type Target = (&'static str, fn(&[u8]));

/// The targets of this file.
pub(crate) const TARGETS: &[Target] = &[("history", history)];

/// A file of the history: bytes behind a good head are read to their end, and records that are whole
/// are found behind damage. The first byte says how many bytes of damage stand before them.
fn history(data: &[u8]) {
    let _ = fuzzing::read_file(data);
    let (first, rest) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let damage = usize::from(first).min(rest.len());
    let (damage, payload) = rest.split_at(damage);
    let (kind, payload) = payload.split_first().map_or((0, payload), |(kind, rest)| (*kind, rest));
    let file = fuzzing::file_with(damage, kind % 4, payload);
    let found = fuzzing::read_file(&file).expect("the head is good");
    assert!(found.whole >= 1, "a whole record is found behind {} bytes of damage", damage.len());
    assert!(found.understood <= found.whole);
}
