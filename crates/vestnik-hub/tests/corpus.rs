//! Replays the corpus of the fuzzer: inputs that reached something, and all that ever broke.

#[path = "../../../fuzz/src/history.rs"]
mod history;

#[test]
fn the_corpus_of_history_files_is_read_without_a_panic() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, check) in history::TARGETS {
        let mut count = 0;
        for input in std::fs::read_dir(corpus.join(name)).expect("each target has a corpus") {
            let path = input.expect("the folder is read").path();
            // Shown when the test fails.
            println!("{}", path.display());
            check(&std::fs::read(&path).expect("the file is read"));
            count += 1;
        }
        assert!(count > 0, "{name} has no inputs");
    }
}
