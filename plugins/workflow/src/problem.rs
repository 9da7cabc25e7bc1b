//! Errors as the specification describes them (RFC 7807), and its standard types.
//!
//! Relies on values. Promises type, status and instance in every error. Knows no case.

use serde::{Deserialize, Serialize};

use crate::value::{Pairs, Value};

/// What every standard type starts with.
const TYPES: &str = "https://serverlessworkflow.io/spec/1.0.0/errors/";
/// The longest detail, in bytes.
const DETAIL_BYTES_MAX: usize = 2_000;

/// The longest text in a history's event, in bytes: one command's events together are one value of the
/// state.
const BRIEF_BYTES_MAX: usize = 300;

/// The standard types, with their default status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Data does not fit a schema.
    Validation,
    /// An expression fails.
    Expression,
    /// Something may not be read.
    Authorization,
    /// Something takes too long.
    Timeout,
    /// A call fails.
    Communication,
    /// A limit is exceeded.
    Runtime,
    /// Something is set up wrongly, such as a workflow that does not exist.
    Configuration,
}

impl Standard {
    fn name_and_status(self) -> (&'static str, i64) {
        match self {
            Self::Validation => ("validation", 400),
            Self::Expression => ("expression", 400),
            Self::Authorization => ("authorization", 403),
            Self::Timeout => ("timeout", 408),
            Self::Communication => ("communication", 500),
            Self::Runtime => ("runtime", 500),
            Self::Configuration => ("configuration", 400),
        }
    }

    /// The type's URI.
    #[must_use]
    pub fn uri(self) -> String {
        format!("{TYPES}{}", self.name_and_status().0)
    }
}

/// An error of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI that says which kind of error it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// A status code.
    pub status: i64,
    /// A JSON pointer to the task that raised it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// A short summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What happened this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Problem {
    /// An error of a standard type.
    #[must_use]
    pub fn standard(kind: Standard, detail: impl Into<String>) -> Self {
        let (name, status) = kind.name_and_status();
        let mut title = format!("{name} error");
        title[..1].make_ascii_uppercase();
        Self {
            kind: kind.uri(),
            status,
            instance: String::new(),
            title: Some(title),
            detail: Some(shorten(detail.into())),
        }
    }

    /// The error as a document.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut pairs = Pairs::new();
        pairs.insert("type".into(), Value::text(&self.kind));
        pairs.insert("status".into(), Value::Int(self.status));
        pairs.insert("instance".into(), Value::text(&self.instance));
        for (key, text) in [("title", &self.title), ("detail", &self.detail)] {
            if let Some(text) = text {
                pairs.insert(key.into(), Value::text(text));
            }
        }
        // Flat, so it cannot nest too deep.
        Value::object(pairs).unwrap_or_default()
    }

    /// The error as histories tell it: without what could make them long.
    #[must_use]
    pub fn brief(&self) -> Value {
        let detail = self.detail.as_deref().map_or(Value::Null, brief);
        Value::record([("type", brief(&self.kind)), ("status", Value::Int(self.status)), ("detail", detail)])
    }

    /// An error from a document; what is missing becomes that of a standard type.
    #[must_use]
    pub fn from_value(value: &Value, otherwise: Standard) -> Self {
        let (name, status) = otherwise.name_and_status();
        let text = |key: &str| {
            value.field(key).filter(|value| !value.is_null()).map(|value| match value {
                Value::Str(text) => shorten(text.as_ref().to_owned()),
                other => shorten(other.to_json()),
            })
        };
        Self {
            kind: text("type").unwrap_or_else(|| format!("{TYPES}{name}")),
            status: value.field("status").and_then(Value::as_int).unwrap_or(status),
            instance: text("instance").unwrap_or_default(),
            title: text("title"),
            detail: text("detail"),
        }
    }
}

fn shorten(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
    text
}

/// The beginning of a text, as histories tell it.
#[must_use]
pub fn brief(text: &str) -> Value {
    Value::text(&text[..text.floor_char_boundary(BRIEF_BYTES_MAX)])
}
