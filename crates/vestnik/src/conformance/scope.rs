//! What placeholders mean in one run of one fixture: ids, signatures and captured values.

use std::collections::HashMap;

use vestnik_core::sign::{Algorithm, Key};
use vestnik_core::{ChannelId, Secret};

use crate::token;

/// Values of placeholders. Ids differ from fixture to fixture and from run to run, so that a server
/// with a history can be asked again.
pub(crate) struct Scope<'a> {
    /// Makes the ids.
    seed: Key,
    /// Signs as the site does.
    key: &'a Key,
    /// Signs as somebody else does.
    stranger: Key,
    captured: HashMap<String, String>,
}

/// The longest text that `repeat` and `list` make.
const TEXT_MAX: usize = 64 << 20;

impl<'a> Scope<'a> {
    /// A scope whose ids follow from `seed` and the fixture's place in the suite.
    pub(crate) fn new(seed: [u8; 16], fixture: usize, key: &'a Key, algorithm: Algorithm) -> Self {
        let secret = |purpose: &str| {
            let text = format!("{purpose} {fixture} {}", vestnik_core::receiver::hex(&seed));
            Secret::new(text)
        };
        Self {
            seed: Key::new(secret("ids"), Algorithm::Md5, None),
            key,
            stranger: Key::new(secret("stranger"), algorithm, None),
            captured: HashMap::new(),
        }
    }

    /// Keeps a value under a name.
    pub(crate) fn capture(&mut self, name: &str, value: &str) {
        self.captured.insert(name.to_owned(), value.to_owned());
    }

    /// The value of a placeholder, written without its braces.
    ///
    /// # Errors
    /// A phrase that says what is wrong with it.
    pub(crate) fn value(&self, written: &str) -> Result<String, String> {
        let (verb, rest) = written.split_once(' ').unwrap_or((written, ""));
        match verb {
            "sig" => Ok(self.key.sign(&[self.subject(rest).as_bytes()]).to_string()),
            "signed" => {
                let subject = self.subject(rest);
                let signature = self.key.sign(&[subject.as_bytes()]);
                Ok(format!("{subject}.{signature}"))
            }
            "forged" => {
                let subject = self.subject(rest);
                let signature = self.stranger.sign(&[subject.as_bytes()]);
                Ok(format!("{subject}.{signature}"))
            }
            "token" => self.token(rest),
            "upper" => Ok(self.value(rest)?.to_uppercase()),
            "seq" => {
                let mid = self.value(rest)?;
                let number = mid.get(10..).and_then(|digits| digits.parse::<u64>().ok());
                number.map(|number| number.to_string()).ok_or(format!("{mid} is no mid"))
            }
            "repeat" => repeated(rest),
            "list" => {
                let count: usize = rest.parse().map_err(|_| format!("`{rest}` is no number"))?;
                let count = count.min(TEXT_MAX / 33);
                let ids: Vec<String> =
                    (1..=count).map(|number| self.id("priv", &number.to_string())).collect();
                Ok(ids.join("/"))
            }
            _ => self
                .name(written)
                .or_else(|| self.captured.get(written).cloned())
                .ok_or_else(|| format!("nothing is called {{{written}}}")),
        }
    }

    /// A token of generation 5 for a user and a channel, of a site of this suite, that does not end.
    fn token(&self, rest: &str) -> Result<String, String> {
        let (user, channel) = rest.split_once(' ').ok_or("a token needs a user and a channel")?;
        let channel = self.name(channel).ok_or("a token needs the name of a channel")?;
        let claims = format!(
            r#"{{"iss":"conformance","iat":0,"exp":9999999999,"sub":"{user}","chan":"{channel}"}}"#
        );
        Ok(token::signed(self.key, &claims))
    }

    /// The text that is signed: names of ids between colons are replaced, other words stay.
    fn subject(&self, written: &str) -> String {
        let words = written.split(':');
        let words: Vec<String> =
            words.map(|word| self.name(word).unwrap_or_else(|| word.to_owned())).collect();
        words.join(":")
    }

    /// The id of a name such as `priv1` or `pub2`.
    fn name(&self, word: &str) -> Option<String> {
        ["priv", "pub"].into_iter().find_map(|kind| {
            let number = word.strip_prefix(kind)?;
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| self.id(kind, number))
        })
    }

    fn id(&self, kind: &str, number: &str) -> String {
        let signature = self.seed.sign(&[kind.as_bytes(), number.as_bytes()]);
        let bytes: [u8; 16] = signature.as_bytes().try_into().unwrap_or_default();
        ChannelId::from_bytes(bytes).to_string()
    }
}

fn repeated(rest: &str) -> Result<String, String> {
    let (text, count) = rest.rsplit_once(' ').unwrap_or((rest, ""));
    let count: usize = count.parse().map_err(|_| format!("`{rest}` is no text and number"))?;
    if text.len().saturating_mul(count) > TEXT_MAX {
        return Err(format!("{count} times `{text}` is too long"));
    }
    Ok(text.repeat(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_fresh_per_run_and_fixture_and_signatures_fit_the_key() {
        let secret = Secret::new("test-signature-key-0123456789abcdef".to_owned());
        let key = Key::new(secret, Algorithm::Sha1, None);
        let scope = |seed, fixture| Scope::new(seed, fixture, &key, Algorithm::Sha1);
        let one = scope([1; 16], 1);
        let id = one.value("priv1").unwrap();
        assert_eq!(one.value("priv1").unwrap(), id);
        for other in [
            one.value("pub1").unwrap(),
            one.value("priv2").unwrap(),
            scope([1; 16], 2).value("priv1").unwrap(),
            scope([2; 16], 1).value("priv1").unwrap(),
        ] {
            assert_ne!(other, id);
        }
        let signature = key.sign(&[id.as_bytes()]).to_string();
        assert_eq!(one.value("signed priv1").unwrap(), format!("{id}.{signature}"));
        assert_eq!(one.value("sig priv1").unwrap(), signature);
        let forged = one.value("forged priv1").unwrap();
        assert_eq!(forged.len(), id.len() + 41);
        assert_ne!(forged, one.value("signed priv1").unwrap());
        assert_eq!(one.value("upper priv1").unwrap(), id.to_uppercase());
        assert_eq!(one.value("list 2").unwrap(), format!("{id}/{}", one.value("priv2").unwrap()));
    }

    #[test]
    fn captured_values_and_what_follows_from_them() {
        let key = Key::new(Secret::new("k".to_owned()), Algorithm::Md5, None);
        let mut scope = Scope::new([0; 16], 0, &key, Algorithm::Md5);
        assert!(scope.value("m1").unwrap_err().contains("nothing is called {m1}"));
        scope.capture("m1", "17954873200000000000003313");
        assert_eq!(scope.value("seq m1").unwrap(), "3313");
        assert_eq!(scope.value("repeat ab 3").unwrap(), "ababab");
        assert!(scope.value("repeat a 999999999999").is_err());
    }
}
