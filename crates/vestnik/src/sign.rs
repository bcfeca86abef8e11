//! `vestnik sign`: channel ids as a site would sign them, for tests and for debugging.

use std::io::Write;
use std::path::PathBuf;

use vestnik_core::sign::{Algorithm, Key, KeyRing};
use vestnik_core::{ChannelId, Secret};

use crate::config::{Config, ConfigArgs};
use crate::failure::Failure;
use crate::keygen;

/// Arguments of `vestnik sign`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct SignArgs {
    /// A private id, or a private and a public id joined by a colon; 32 lower-case hex digits each.
    #[arg(value_name = "PRIVATE[:PUBLIC]", required_unless_present_any = ["public", "random"])]
    pub(crate) id: Option<String>,
    /// Sign this public id as a receiver of messages.
    #[arg(long, value_name = "PUBLIC", conflicts_with = "id")]
    pub(crate) public: Option<String>,
    /// Make a fresh pair of ids and sign it.
    #[arg(long, conflicts_with_all = ["id", "public"])]
    pub(crate) random: bool,
    /// The signature key itself; other users of this machine can see it.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["key_file", "config"])]
    pub(crate) key: Option<String>,
    /// A file that holds the key.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) key_file: Option<PathBuf>,
    /// Algorithm of --key and --key-file.
    #[arg(long, value_name = "NAME", default_value = "sha1")]
    pub(crate) algorithm: Algorithm,
    /// Print all forms as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the key comes from if neither --key nor --key-file is given.
    #[command(flatten)]
    pub(crate) configuration: ConfigArgs,
}

/// Signs and prints.
pub(crate) fn run(args: &SignArgs) -> anyhow::Result<()> {
    print_signed(args, &mut std::io::stdout().lock())
}

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Private(ChannelId),
    Pair(ChannelId, ChannelId),
    Public(ChannelId),
}

fn print_signed(args: &SignArgs, out: &mut impl Write) -> anyhow::Result<()> {
    // The id first: a slip in it is told without the need for a key.
    let subject = subject(args)?;
    let ring = keys(args)?;
    let key = ring.signing_key().ok_or_else(|| {
        Failure::new(
            "there is no key to sign with: this configuration accepts bare ids",
            "give --key or --key-file, or use the ids without a signature",
        )
    })?;
    let lines = signed_forms(subject, key);
    if args.json {
        let object: serde_json::Map<_, _> = lines
            .iter()
            .map(|(name, _, value)| ((*name).to_owned(), value.clone().into()))
            .collect();
        writeln!(out, "{}", serde_json::Value::Object(object))?;
    } else if args.random {
        for (_, title, value) in &lines {
            writeln!(out, "{title:<17} {value}")?;
        }
    } else if let Some((_, _, value)) = lines.iter().find(|(name, ..)| name.starts_with("signed")) {
        // One line, so that a script can use it as it is.
        writeln!(out, "{value}")?;
    }
    Ok(())
}

/// Name in JSON, title for people, value; the asked form is the first whose name begins `signed`.
fn signed_forms(subject: Subject, key: &Key) -> Vec<(&'static str, &'static str, String)> {
    let public_form = |public: ChannelId| {
        let signature = key.sign(&[b"public:", &public.to_hex()]);
        ("signed_public", "signed public id", format!("{public}.{signature}"))
    };
    match subject {
        Subject::Private(private) => {
            let signature = key.sign(&[&private.to_hex()]);
            vec![
                ("private", "private id", private.to_string()),
                ("signed_private", "signed private id", format!("{private}.{signature}")),
            ]
        }
        Subject::Pair(private, public) => {
            let signature = key.sign(&[&private.to_hex(), b":", &public.to_hex()]);
            vec![
                ("private", "private id", private.to_string()),
                ("public", "public id", public.to_string()),
                ("signed_pair", "signed pair", format!("{private}:{public}.{signature}")),
                public_form(public),
            ]
        }
        Subject::Public(public) => {
            vec![("public", "public id", public.to_string()), public_form(public)]
        }
    }
}

fn subject(args: &SignArgs) -> anyhow::Result<Subject> {
    if args.random {
        let [private, public] = keygen::random_ids()?.map(ChannelId::from_bytes);
        return Ok(Subject::Pair(private, public));
    }
    if let Some(public) = &args.public {
        return Ok(Subject::Public(channel_id(public)?));
    }
    let written = args.id.as_deref().unwrap_or_default();
    Ok(match written.split_once(':') {
        None => Subject::Private(channel_id(written)?),
        Some((private, public)) => Subject::Pair(channel_id(private)?, channel_id(public)?),
    })
}

fn channel_id(written: &str) -> Result<ChannelId, Failure> {
    written.parse().map_err(|error| {
        let hint = if written.parse::<ChannelId>().is_err()
            && written.to_ascii_lowercase().parse::<ChannelId>().is_ok()
        {
            format!("write it in lower case: {}", written.to_ascii_lowercase())
        } else if written.contains('.') {
            "give the id without its signature".to_owned()
        } else {
            "`vestnik sign --random` makes a pair of ids".to_owned()
        };
        Failure::new(format!("`{written}` is not a channel id: {error}"), hint)
    })
}

fn keys(args: &SignArgs) -> anyhow::Result<KeyRing> {
    let secret = match (&args.key, &args.key_file) {
        (Some(key), _) if key.is_empty() => {
            return Err(Failure::new("the key is empty", "`vestnik keygen` makes one").into());
        }
        (Some(key), _) => Secret::new(key.clone()),
        (None, Some(file)) => keygen::load_key(file)?,
        (None, None) => {
            let (config, _) = Config::load(&args.configuration.sources())?;
            return Ok(config.security.read_keys()?);
        }
    };
    Ok(KeyRing::new(vec![Key::new(secret, args.algorithm, None)])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::report;

    const KEY: &str = "test-signature-key-0123456789abcdef";
    const PRIVATE: &str = "00112233445566778899aabbccddeeff";
    const PUBLIC: &str = "ffeeddccbbaa99887766554433221100";

    fn with_key() -> SignArgs {
        SignArgs { key: Some(KEY.into()), ..SignArgs::default() }
    }

    fn printed(args: &SignArgs) -> String {
        let mut out = Vec::new();
        print_signed(args, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn refused(args: &SignArgs) -> (String, u8) {
        report(&print_signed(args, &mut Vec::new()).unwrap_err())
    }

    #[test]
    fn the_worked_examples_of_the_specification_come_out() {
        let private = SignArgs { id: Some(PRIVATE.into()), ..with_key() };
        assert_eq!(
            printed(&private),
            format!("{PRIVATE}.cf29ff07dc09d1c9fb80211d358b1301f601054d\n")
        );
        let pair = SignArgs { id: Some(format!("{PRIVATE}:{PUBLIC}")), ..with_key() };
        assert_eq!(
            printed(&pair),
            format!("{PRIVATE}:{PUBLIC}.c9c1f42ccc4ff9152fcdfc62b8c03cd56bfea155\n")
        );
        let public = SignArgs { public: Some(PUBLIC.into()), ..with_key() };
        assert_eq!(
            printed(&public),
            format!("{PUBLIC}.d50c2c98ed6f8e8ba0698d91b5a2fdac97fb26b0\n")
        );
        let md5 = SignArgs { algorithm: Algorithm::Md5, ..private };
        assert_eq!(printed(&md5), format!("{PRIVATE}.fb95d1d5aa3c74c48ef9cbc556bc8db0\n"));
    }

    #[test]
    fn json_has_all_forms_of_a_pair() {
        let args = SignArgs { id: Some(format!("{PRIVATE}:{PUBLIC}")), json: true, ..with_key() };
        let object: serde_json::Value = serde_json::from_str(&printed(&args)).unwrap();
        assert_eq!(object["private"], PRIVATE);
        assert_eq!(object["public"], PUBLIC);
        assert_eq!(
            object["signed_pair"],
            format!("{PRIVATE}:{PUBLIC}.c9c1f42ccc4ff9152fcdfc62b8c03cd56bfea155")
        );
        assert_eq!(
            object["signed_public"],
            format!("{PUBLIC}.d50c2c98ed6f8e8ba0698d91b5a2fdac97fb26b0")
        );
    }

    #[test]
    fn a_random_pair_is_fresh_and_complete() {
        let args = SignArgs { random: true, ..with_key() };
        let (one, other) = (printed(&args), printed(&args));
        assert_eq!(one.lines().count(), 4);
        for (line, title) in
            one.lines().zip(["private id", "public id", "signed pair", "signed public id"])
        {
            assert!(line.starts_with(title), "{line}");
        }
        assert_ne!(one, other);
    }

    #[test]
    fn slips_are_told_with_a_hint() {
        let id = |id: &str| refused(&SignArgs { id: Some(id.into()), ..with_key() });
        let (text, code) = id(&PRIVATE.to_uppercase());
        assert!(text.ends_with(&format!("hint: write it in lower case: {PRIVATE}")), "{text}");
        assert_eq!(code, 1);
        assert!(id(&format!("{PRIVATE}.abcd")).0.contains("without its signature"));
        assert!(id(&format!("{PRIVATE}:")).0.contains("not a channel id"));
        let empty = SignArgs { key: Some(String::new()), id: Some(PRIVATE.into()), ..with_key() };
        assert!(refused(&empty).0.contains("vestnik keygen"));
        let missing = SignArgs {
            key_file: Some("does-not-exist".into()),
            id: Some(PRIVATE.into()),
            ..SignArgs::default()
        };
        assert!(refused(&missing).0.contains("keygen --output does-not-exist"));
    }
}
