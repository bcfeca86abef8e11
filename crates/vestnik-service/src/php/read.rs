//! Readers of PHP's own forms: `serialize`, and arrays written in source files.

use super::Value;

/// Text that is not what PHP writes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// Something else was expected.
    #[error("unexpected text at byte {at}")]
    Unexpected {
        /// Where.
        at: usize,
    },
    /// Arrays within arrays, over the limit.
    #[error("arrays are nested deeper than {DEPTH_MAX}")]
    Depth,
}

/// How deep arrays may be nested.
const DEPTH_MAX: usize = 32;

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// Reads the form of PHP's `serialize`; objects are refused.
///
/// # Errors
/// When it is something else.
pub fn unserialize(text: &str) -> Result<Value, ReadError> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.serialized(0)?;
    if reader.at == text.len() { Ok(value) } else { reader.unexpected() }
}

/// Reads the first array of a source file, behind `return` or `name =`: strings, numbers, constants
/// and arrays; comments are skipped, nothing is executed.
///
/// # Errors
/// When there is none, or anything else in it.
pub fn source_array(text: &str, behind: &str) -> Result<Value, ReadError> {
    let begin = text.find(behind).ok_or(ReadError::Unexpected { at: 0 })?;
    let mut reader = Reader { text, at: begin + behind.len() };
    reader.blank();
    if reader.skip("=") {
        reader.blank();
    }
    let value = reader.expression(0)?;
    if matches!(value, Value::Array(_)) { Ok(value) } else { reader.unexpected() }
}

impl<'a> Reader<'a> {
    fn unexpected<T>(&self) -> Result<T, ReadError> {
        Err(ReadError::Unexpected { at: self.at })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self, word: &str) -> bool {
        let is_there = self.rest().starts_with(word);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    fn expect(&mut self, word: &str) -> Result<(), ReadError> {
        if self.skip(word) { Ok(()) } else { self.unexpected() }
    }

    fn until(&mut self, end: char) -> Result<&'a str, ReadError> {
        let Some(length) = self.rest().find(end) else { return self.unexpected() };
        let text = &self.rest()[..length];
        self.at += length + end.len_utf8();
        Ok(text)
    }

    fn number<T: std::str::FromStr>(&mut self, end: char) -> Result<T, ReadError> {
        let at = self.at;
        self.until(end)?.parse().map_err(|_| ReadError::Unexpected { at })
    }

    fn serialized(&mut self, depth: usize) -> Result<Value, ReadError> {
        if depth > DEPTH_MAX {
            return Err(ReadError::Depth);
        }
        if self.skip("N;") {
            return Ok(Value::Null);
        }
        if self.skip("b:") {
            return Ok(Value::Bool(self.number::<u8>(';')? != 0));
        }
        if self.skip("i:") {
            return self.number(';').map(Value::Int);
        }
        if self.skip("d:") {
            return self.number(';').map(Value::Float);
        }
        if self.skip("s:") {
            let length: usize = self.number(':')?;
            self.expect("\"")?;
            let end = self.at.saturating_add(length);
            let Some(text) = self.text.get(self.at..end) else { return self.unexpected() };
            self.at = end;
            self.expect("\";")?;
            return Ok(Value::text(text));
        }
        self.expect("a:")?;
        let length: usize = self.number(':')?;
        self.expect("{")?;
        let mut entries = Vec::new();
        for _ in 0..length {
            let key = self.serialized(depth + 1)?;
            if !matches!(key, Value::Int(_) | Value::Text(_)) {
                return self.unexpected();
            }
            entries.push((key, self.serialized(depth + 1)?));
        }
        self.expect("}")?;
        Ok(Value::Array(entries))
    }

    /// Skips blanks and comments.
    fn blank(&mut self) {
        loop {
            let before = self.at;
            self.at += self.rest().len() - self.rest().trim_start().len();
            if self.skip("//") || self.skip("#") {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            } else if self.skip("/*") {
                self.at += self.rest().find("*/").map_or(self.rest().len(), |length| length + 2);
            }
            if self.at == before {
                return;
            }
        }
    }

    fn expression(&mut self, depth: usize) -> Result<Value, ReadError> {
        if depth > DEPTH_MAX {
            return Err(ReadError::Depth);
        }
        self.blank();
        let rest = self.rest();
        if rest.starts_with(['\'', '"']) {
            return self.string().map(Value::Text);
        }
        if self.skip("[") {
            return self.entries(']', depth);
        }
        let length = rest
            .find(|letter: char| !letter.is_ascii_alphanumeric() && !"_.-+".contains(letter))
            .unwrap_or(rest.len());
        let word = &rest[..length];
        self.at += length;
        match word.to_ascii_lowercase().as_str() {
            "array" => {
                self.blank();
                self.expect("(")?;
                self.entries(')', depth)
            }
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            _ => match (word.parse(), word.parse()) {
                (Ok(number), _) => Ok(Value::Int(number)),
                (_, Ok(number))
                    if word.starts_with(|it: char| it.is_ascii_digit() || it == '-') =>
                {
                    Ok(Value::Float(number))
                }
                _ => self.unexpected(),
            },
        }
    }

    fn entries(&mut self, end: char, depth: usize) -> Result<Value, ReadError> {
        let mut entries = Vec::new();
        let mut next = 0;
        loop {
            self.blank();
            if self.rest().starts_with(end) {
                self.at += 1;
                return Ok(Value::Array(entries));
            }
            let first = self.expression(depth + 1)?;
            self.blank();
            if self.skip("=>") {
                entries.push((first, self.expression(depth + 1)?));
            } else {
                entries.push((Value::Int(next), first));
                next += 1;
            }
            self.blank();
            if !self.skip(",") && !self.rest().starts_with(end) {
                return self.unexpected();
            }
        }
    }

    fn string(&mut self) -> Result<String, ReadError> {
        let mut letters = self.rest().char_indices();
        let quote = letters.next().map_or('\'', |it| it.1);
        let mut text = String::new();
        while let Some((at, letter)) = letters.next() {
            if letter == quote {
                self.at += at + 1;
                return Ok(text);
            }
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            match letters.next() {
                Some((_, escaped)) if escaped == quote || escaped == '\\' => text.push(escaped),
                Some((_, 'n')) if quote == '"' => text.push('\n'),
                Some((_, '$')) if quote == '"' => text.push('$'),
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            }
        }
        self.unexpected()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in ".{0,200}", near in "[aisbdN:;{}\"'0-9=>(),\\[\\]я]{0,80}") {
            for text in [&text, &near] {
                if let Ok(value) = unserialize(text) {
                    prop_assert!(unserialize(&value.serialize()).is_ok());
                }
                drop(source_array(&format!("return {text}"), "return"));
            }
        }
    }

    #[test]
    fn what_was_serialized_is_read_again_and_garbage_is_refused() {
        let text = r#"a:2:{s:2:"s2";s:2:"s2";i:7;a:1:{i:0;b:1;}}"#;
        let value = unserialize(text).unwrap();
        assert_eq!(value.get("s2"), Some(&Value::text("s2")));
        assert_eq!(value.serialize(), text);
        assert_eq!(unserialize("a:0:{}"), Ok(Value::Array(Vec::new())));
        for bad in ["", "a:1:{}", "s:9:\"a\";", "O:1:\"a\":0:{}", "a:0:{}x", "s:1:\"я\";", "i:x;"]
        {
            assert!(unserialize(bad).is_err(), "{bad}");
        }
        assert_eq!(unserialize(&"a:1:{i:0;".repeat(1000)), Err(ReadError::Depth));
    }

    #[test]
    fn arrays_of_source_files_are_read_and_nothing_is_executed() {
        let text = "<?php // pull\nreturn array('pull' => ['value' => array(\n 'a' => '4', /* x */ \
                    \"b\" => -2, 'c' => true,), 'list' => [1, 'x']]);";
        let value = source_array(text, "return").unwrap();
        let pull = value.get("pull").and_then(|it| it.get("value")).unwrap();
        assert_eq!(pull.get("a"), Some(&Value::text("4")));
        assert_eq!(pull.get("b"), Some(&Value::Int(-2)));
        assert_eq!(pull.get("c"), Some(&Value::Bool(true)));
        for bad in ["return system('x');", "return ['a' => $b];", "return ['a'", "nothing"] {
            assert!(source_array(bad, "return").is_err(), "{bad}");
        }
    }
}
