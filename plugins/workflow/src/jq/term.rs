//! A runtime expression in its stored form.
//!
//! Relies on serde. Promises that nothing in it needs the text again: names are resolved to distances, and
//! only the definitions that are used come along. Knows no evaluation.

use serde::{Deserialize, Serialize};

use super::native::{Control, Fun};
use crate::value::Value;

/// An expression with the definitions of the prelude that it uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Filter {
    /// Definitions of the prelude, called by their place.
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    pub defs: Vec<Def>,
    /// What is evaluated.
    #[serde(rename = "m")]
    pub main: Expr,
    /// The variables it asks the engine for.
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    pub globals: Vec<String>,
    /// Whether it looks at a definition through `$workflow` or `$task`, which costs a read.
    #[serde(rename = "w", default, skip_serializing_if = "std::ops::Not::not")]
    pub reads_definition: bool,
}

/// A definition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Def {
    /// For each parameter, whether it is a value (`$x`) rather than a filter (`f`).
    #[serde(rename = "p")]
    pub values: Vec<bool>,
    /// What a call evaluates.
    #[serde(rename = "b")]
    pub body: Expr,
}

/// How values become text within a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Texts as they are, everything else as JSON.
    Text,
    /// JSON.
    Json,
    /// A row of comma-separated values.
    Csv,
    /// A row of tab-separated values.
    Tsv,
    /// Escaped for HTML and XML.
    Html,
    /// Percent-encoded.
    Uri,
    /// Quoted for a shell.
    Sh,
    /// Base 64.
    Base64,
    /// Decoded from base 64.
    Base64d,
}

/// Part of a text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Part {
    /// Letters.
    #[serde(rename = "s")]
    Text(String),
    /// A value, formatted.
    #[serde(rename = "e")]
    Term(Expr),
}

/// An operation on two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Math {
    /// Sum, concatenation, merge.
    #[serde(rename = "+")]
    Add,
    /// Difference.
    #[serde(rename = "-")]
    Sub,
    /// Product, repetition, deep merge.
    #[serde(rename = "*")]
    Mul,
    /// Quotient, split.
    #[serde(rename = "/")]
    Div,
    /// Remainder.
    #[serde(rename = "%")]
    Rem,
}

/// A comparison of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// Less.
    #[serde(rename = "<")]
    Lt,
    /// Less or equal.
    #[serde(rename = "<=")]
    Le,
    /// Greater.
    #[serde(rename = ">")]
    Gt,
    /// Greater or equal.
    #[serde(rename = ">=")]
    Ge,
    /// Equal.
    #[serde(rename = "=")]
    Eq,
    /// Not equal.
    #[serde(rename = "!")]
    Ne,
}

/// What a value is taken apart into.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Pattern {
    /// The whole value, under the next name.
    #[serde(rename = "v")]
    Var,
    /// The values of keys, each with its pattern.
    #[serde(rename = "i")]
    Index(Vec<(Expr, Pattern)>),
}

/// One step of a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// `.key`, `[index]`.
    #[serde(rename = "i")]
    Index(Expr),
    /// `[from:to]`.
    #[serde(rename = "s")]
    Slice(Option<Expr>, Option<Expr>),
    /// `[]`.
    #[serde(rename = "a")]
    Each,
}

/// An expression. Distances count bindings outwards, from 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Expr {
    /// `.`
    #[serde(rename = ".")]
    Id,
    /// `..`
    #[serde(rename = "..")]
    Dots,
    /// A value.
    #[serde(rename = "c")]
    Const(Value),
    /// A text with values in it.
    #[serde(rename = "t")]
    Text(Format, Vec<Part>),
    /// `[f]`
    #[serde(rename = "[")]
    Array(Box<Expr>),
    /// `{key: value, ..}`
    #[serde(rename = "{")]
    Object(Vec<(Expr, Expr)>),
    /// `-f`
    #[serde(rename = "n")]
    Neg(Box<Expr>),
    /// `f | g`
    #[serde(rename = "|")]
    Pipe(Box<(Expr, Expr)>),
    /// `f, g`
    #[serde(rename = ",")]
    Comma(Box<(Expr, Expr)>),
    /// `f // g`
    #[serde(rename = "/")]
    Alt(Box<(Expr, Expr)>),
    /// `f and g`
    #[serde(rename = "&")]
    And(Box<(Expr, Expr)>),
    /// `f or g`
    #[serde(rename = "o")]
    Or(Box<(Expr, Expr)>),
    /// `f + g` and the like
    #[serde(rename = "m")]
    Math(Math, Box<(Expr, Expr)>),
    /// `f < g` and the like
    #[serde(rename = "q")]
    Compare(Compare, Box<(Expr, Expr)>),
    /// `f as pattern | g`
    #[serde(rename = "b")]
    Bind(Pattern, Box<(Expr, Expr)>),
    /// `reduce f as pattern (init; update)`
    #[serde(rename = "r")]
    Reduce(Pattern, Box<(Expr, Expr, Expr)>),
    /// `foreach f as pattern (init; update; extract)`
    #[serde(rename = "f")]
    Foreach(Pattern, Box<(Expr, Expr, Expr, Expr)>),
    /// `try f catch g`
    #[serde(rename = "y")]
    Try(Box<Expr>, Option<Box<Expr>>),
    /// `if f then g else h end`
    #[serde(rename = "?")]
    If(Box<(Expr, Expr, Expr)>),
    /// `label $x | f`
    #[serde(rename = "l")]
    Label(Box<Expr>),
    /// `break $x`
    #[serde(rename = "k")]
    Break(u16),
    /// `f.a[0][]?`: steps, each with whether it may fail in silence
    #[serde(rename = "p")]
    Path(Box<Expr>, Vec<(Step, bool)>),
    /// `f = g`
    #[serde(rename = "=")]
    Assign(Box<(Expr, Expr)>),
    /// `f |= g`
    #[serde(rename = "u")]
    Update(Box<(Expr, Expr)>),
    /// `f += g` and the like
    #[serde(rename = "um")]
    UpdateMath(Math, Box<(Expr, Expr)>),
    /// `f //= g`
    #[serde(rename = "ua")]
    UpdateAlt(Box<(Expr, Expr)>),
    /// `$x`, bound here
    #[serde(rename = "$")]
    Local(u16),
    /// `$x`, known to the engine
    #[serde(rename = "$$")]
    Global(String),
    /// A parameter that is a filter
    #[serde(rename = "a")]
    Argument(u16),
    /// A call of a definition bound here
    #[serde(rename = "()")]
    Call(u16, Vec<Expr>),
    /// A call of a definition of the prelude
    #[serde(rename = "P")]
    Prelude(u16, Vec<Expr>),
    /// `def f: g; h`
    #[serde(rename = "D")]
    Define(Box<(Def, Expr)>),
    /// A function of values
    #[serde(rename = "F")]
    Fun(Fun, Vec<Expr>),
    /// A function that controls evaluation
    #[serde(rename = "C")]
    Control(Control, Vec<Expr>),
}
