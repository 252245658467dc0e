//! Strings and their escapes.

use super::{JsonError, NotAllowed, Parser};

impl<'a> Parser<'a> {
    /// Reads a string; the current byte is its opening quote.
    pub(super) fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let plain = self.plain_run()?;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    // Most strings have no escape: then this is the only allocation.
                    if text.is_empty() {
                        return Ok(plain.to_owned());
                    }
                    text.push_str(plain);
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push_str(plain);
                    let character = self.escape()?;
                    text.push(character);
                }
                Some(_) => return Err(self.not_json("a control character in a string")),
                None => return Err(self.not_json("the input ends within a string")),
            }
        }
    }

    /// The characters up to the next quote, backslash or control character.
    fn plain_run(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
            .unwrap_or(rest.len());
        self.at += length;
        std::str::from_utf8(self.since(start)).map_err(|error| JsonError::NotJson {
            at: start + error.valid_up_to(),
            what: "a string that is not UTF-8",
        })
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let byte = self.peek().ok_or_else(|| self.not_json("the input ends within a string"))?;
        let character = match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.not_json("an unknown escape")),
        };
        self.at += 1;
        Ok(character)
    }

    /// Reads what follows `\u`: four digits, and a second escape if they are half a pair.
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.four_hex_digits()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        let lone = self.not_allowed(NotAllowed::LoneSurrogate);
        if first >= 0xdc00 || !(self.eat(b'\\') && self.eat(b'u')) {
            return Err(lone);
        }
        let second = self.four_hex_digits()?;
        let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or(lone.clone())?;
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + low).ok_or(lone)
    }

    fn four_hex_digits(&mut self) -> Result<u32, JsonError> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = self
                .peek()
                .and_then(|byte| (byte as char).to_digit(16))
                .ok_or_else(|| self.not_json("four hexadecimal digits are missing"))?;
            number = number << 4 | digit;
            self.at += 1;
        }
        Ok(number)
    }
}
