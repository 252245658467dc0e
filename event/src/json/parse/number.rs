//! Numbers, in the three ways of reading them.

use super::{BigInteger, JsonError, MAX_INTEGER, NotAllowed, Numbers, Parser, Value};

/// CPython's limit on reading a decimal integer.
const MAX_DIGITS: usize = 4_300;

impl Parser<'_> {
    pub(super) fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        self.eat(b'-');
        if self.eat(b'0') {
            if let Some(b'0'..=b'9') = self.peek() {
                return Err(self.not_json("a leading zero"));
            }
        } else {
            self.digits()?;
        }
        let is_integer = !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        if !is_integer {
            self.fraction_and_exponent()?;
        }
        let text = std::str::from_utf8(self.since(start)).unwrap_or_default();
        let value = if is_integer { self.integer(text) } else { self.float(text) };
        value.map_err(|what| self.not_allowed(what))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.not_json("a digit is missing")) } else { Ok(()) }
    }

    fn fraction_and_exponent(&mut self) -> Result<(), JsonError> {
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn integer(&self, text: &str) -> Result<Value, NotAllowed> {
        let strict = self.numbers == Numbers::Strict;
        if strict && text == "-0" {
            return Err(NotAllowed::NegativeZero);
        }
        match text.parse::<i64>() {
            Ok(number) if self.numbers == Numbers::Lax => Ok(Value::Integer(number)),
            Ok(number) if number.unsigned_abs() <= MAX_INTEGER.unsigned_abs() => {
                Ok(Value::Integer(number))
            }
            Err(_) if self.numbers == Numbers::Lax => {
                if text.trim_start_matches('-').len() > MAX_DIGITS {
                    return Err(NotAllowed::TooLarge);
                }
                Ok(Value::BigInteger(BigInteger::from_checked(text)))
            }
            _ => Err(NotAllowed::IntegerRange),
        }
    }

    fn float(&self, text: &str) -> Result<Value, NotAllowed> {
        if self.numbers == Numbers::Strict {
            return Err(NotAllowed::Fraction);
        }
        let number: f64 = text.parse().map_err(|_| NotAllowed::TooLarge)?;
        if !number.is_finite() {
            return Err(NotAllowed::TooLarge);
        }
        if self.numbers == Numbers::Lax {
            return Ok(Value::Float(number));
        }
        if number.fract() != 0.0 {
            return Err(NotAllowed::Fraction);
        }
        if number.abs() > MAX_INTEGER as f64 {
            return Err(NotAllowed::IntegerRange);
        }
        Ok(Value::Integer(number as i64))
    }
}
