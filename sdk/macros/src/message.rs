//! The placeholders of a message.
//!
//! Relies on nothing. Promises the format string that `format!` takes and the fields it names. Knows no
//! enum.

/// A message whose unnamed fields have names, and all the fields it shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// For `format!`: `{0:?}` became `{field_0:?}`.
    pub(crate) format: String,
    /// Fields in the order they appear, each once.
    pub(crate) fields: Vec<String>,
}

/// Takes a message apart, or says what is wrong with it.
pub(crate) fn parse(message: &str) -> Result<Message, String> {
    let mut format = String::with_capacity(message.len());
    let mut fields: Vec<String> = Vec::new();
    let mut rest = message;
    while let Some(place) = rest.find(['{', '}']) {
        format.push_str(&rest[..place]);
        rest = &rest[place..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            format.push_str(&rest[..2]);
            rest = after;
            continue;
        }
        let Some((placeholder, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'))
        else {
            return Err("a brace has no partner; write {{ or }} for a brace itself".into());
        };
        let (name, style) = placeholder.split_at(placeholder.find(':').unwrap_or(placeholder.len()));
        let field = match name.trim() {
            "" => return Err("name the field in each placeholder: {account} or {0}".into()),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("field_{number}"),
            named => named.to_owned(),
        };
        format.push_str(&format!("{{{field}{style}}}"));
        if !fields.contains(&field) {
            fields.push(field);
        }
        rest = after;
    }
    format.push_str(rest);
    Ok(Message { format, fields })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn placeholders_become_fields() {
        let message = parse("{0} of {account:?}, {0:>5} {{literal}}").unwrap();
        assert_eq!(message.format, "{field_0} of {account:?}, {field_0:>5} {{literal}}");
        assert_eq!(message.fields, ["field_0", "account"]);
    }

    #[test]
    fn lonely_braces_and_nameless_placeholders_are_refused() {
        for wrong in ["{", "}", "a {b", "a } b", "{}", "{:?}"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
