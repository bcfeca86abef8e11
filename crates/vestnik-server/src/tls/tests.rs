//! Certificates as files, and which of them answers.

use std::path::Path;

use super::*;

struct Made {
    certificate: PathBuf,
    key: PathBuf,
}

/// Seconds since 1970 of 2030-06-01.
const NOW_S: u64 = 1_906_502_400;

fn make(folder: &Path, name: &str, names: &[&str], until_year: i32) -> Made {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = Made {
        certificate: folder.join(format!("{name}.crt")),
        key: folder.join(format!("{name}.key")),
    };
    std::fs::write(&made.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&made.key, key.serialize_pem()).unwrap();
    made
}

#[test]
fn a_certificate_is_found_by_its_names_and_else_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name, names: &[&str]| {
        let made = make(folder.path(), name, names, 2040);
        Certificate::load(&made.certificate, &made.key, NOW_S).unwrap()
    };
    let first = load("first", &["one.example.com"]);
    let second = load("second", &["TWO.example.com", "*.example.org"]);
    assert_eq!(second.names().collect::<Vec<_>>(), ["two.example.com", "*.example.org"]);
    assert_eq!(first.valid_s(), (1_577_836_800, 2_208_988_800));
    let names = Names::new(&[first.clone(), second.clone()], Arc::default());
    for (name, expected) in [
        (None, &first),
        (Some("one.example.com"), &first),
        (Some("Two.Example.com"), &second),
        (Some("a.example.org"), &second),
        (Some("a.b.example.org"), &first),
        (Some("example.org"), &first),
        (Some("unknown"), &first),
    ] {
        assert!(Arc::ptr_eq(&names.find(name).unwrap(), &expected.pair), "{name:?}");
    }
    assert!(Names::new(&[], Arc::default()).find(Some("one.example.com")).is_none());
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let good = make(folder.path(), "good", &["good.example.com"], 2040);
    let other = make(folder.path(), "other", &["other.example.com"], 2040);
    let old = make(folder.path(), "old", &["old.example.com"], 2025);
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let encrypted = folder.path().join("encrypted");
    std::fs::write(
        &encrypted,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let missing = folder.path().join("missing");
    for (certificate, key, path, part) in [
        (&missing, &good.key, &missing, "cannot be read"),
        (&good.certificate, &missing, &missing, "cannot be read"),
        (&empty, &good.key, &empty, "holds no certificate"),
        (&good.key, &good.key, &good.key, "holds no certificate"),
        (&good.certificate, &good.certificate, &good.certificate, "holds no private key"),
        (&good.certificate, &encrypted, &encrypted, "holds an encrypted key"),
        (&good.certificate, &other.key, &other.key, "does not belong"),
        (&old.certificate, &old.key, &old.certificate, "has expired"),
    ] {
        let text = Certificate::load(certificate, key, NOW_S).unwrap_err().to_string();
        assert!(text.contains(part), "{part}: {text}");
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
    let both = folder.path().join("both.pem");
    let text = [&good.key, &good.certificate].map(|it| std::fs::read_to_string(it).unwrap());
    std::fs::write(&both, text.concat()).unwrap();
    assert!(Certificate::load(&both, &both, NOW_S).is_ok());
}
