//! The fixtures in the program.

use super::language::{self, Fixture, SyntaxError};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Names and texts of the files in `conformance/`.
        const FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../conformance/", $name)))),*];
    };
}

files![
    "binary.fixture",
    "channel_ids.fixture",
    "delivery.fixture",
    "formats.fixture",
    "generation5.fixture",
    "improvements.fixture",
    "long_poll.fixture",
    "presence.fixture",
    "rest.fixture",
    "routing.fixture",
    "stats.fixture",
    "text_publish.fixture",
    "websocket.fixture",
];

/// All fixtures, in the order of their files.
pub(crate) fn fixtures() -> Result<Vec<Fixture>, SyntaxError> {
    let mut fixtures = Vec::new();
    for (name, text) in FILES {
        fixtures.extend(language::parse(name, text)?);
    }
    Ok(fixtures)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_in_the_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
        let found: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| entry.expect("it is read").file_name().into_string().expect("text"))
            .collect();
        let known: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(found, known);
    }

    #[test]
    fn every_fixture_has_steps_that_expect_something() {
        for fixture in fixtures().expect("the suite is well written") {
            let expects = fixture.steps.iter().any(|step| {
                matches!(
                    step.action,
                    language::Action::Expect { .. } | language::Action::Presence { .. }
                )
            });
            assert!(expects, "{}: {}", fixture.file, fixture.title);
        }
    }

    /// The golden bytes of the codecs are written in the same language.
    #[test]
    fn the_quirks_of_the_codecs_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vestnik-proto/fixtures/quirks");
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("it is read").path();
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).expect("it is read");
            let fixtures = language::parse(&name, &text).expect("it is well written");
            assert_eq!(fixtures[0].items, [format!("quirks/{name}")]);
        }
    }
}
