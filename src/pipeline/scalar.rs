//! Plain scalars by the core schema of YAML 1.2.2 (§ 10.3): `no` and `on` are texts, `5e-5` is a number.

use serde_json::{Number, Value};

/// What a plain scalar means.
///
/// # Errors
/// A number that no parameter can have: infinite, not a number, or an integer beyond 64 bits.
pub(super) fn resolve(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Err(format!("`{text}` is no number that can be used")),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Err(format!("`{text}` is no number that can be used"));
    }
    let too_large = || format!("the number `{text}` is too large");
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix).filter(|d| all(d, |c| c.is_digit(radix))) {
            return u64::from_str_radix(digits, radix).map(Value::from).map_err(|_| too_large());
        }
    }
    if all(unsigned, |c| c.is_ascii_digit()) {
        let written = text.strip_prefix('+').unwrap_or(text);
        let number = written.parse::<u64>().map(Value::from).or_else(|_| written.parse::<i64>().map(Value::from));
        return number.map_err(|_| too_large());
    }
    if is_float(unsigned) {
        let number = text.parse::<f64>().ok().and_then(Number::from_f64);
        return number.map(Value::Number).ok_or_else(too_large);
    }
    Ok(Value::String(text.to_owned()))
}

fn all(digits: &str, is: impl Fn(char) -> bool) -> bool {
    !digits.is_empty() && digits.chars().all(is)
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix(['-', '+']).unwrap_or(exponent)),
        None => (unsigned, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let mantissa_is_one = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    mantissa_is_one && all(exponent, |c| c.is_ascii_digit())
}

/// Whether the character may stand in a YAML text as it is (`c-printable`, § 5.1).
pub(super) fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_mean_what_the_core_schema_says() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("no", json!("no")),
            ("on", json!("on")),
            ("True", json!(true)),
            ("tRue", json!("tRue")),
            ("5e-5", json!(5e-5)),
            ("1.0", json!(1.0)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            (".", json!(".")),
            ("e5", json!("e5")),
            ("1e", json!("1e")),
            ("-12", json!(-12)),
            ("+12", json!(12)),
            ("012", json!(12)),
            ("0x1f", json!(31)),
            ("0o17", json!(15)),
            ("-0x1f", json!("-0x1f")),
            ("1_000", json!("1_000")),
            ("12:30", json!("12:30")),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("inf", json!("inf")),
            ("nan", json!("nan")),
        ] {
            assert_eq!(resolve(text).unwrap(), value, "{text}");
        }
        for text in ["18446744073709551616", "1e400", "-.inf", ".nan", "0xfffffffffffffffff"] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}
