//! The functions that are written in Rust, by name and number of arguments.
//!
//! Relies on serde. Promises that a stored expression names a function rather than numbers it, so that a
//! later component still reads it. Knows not what the functions do.

use serde::{Deserialize, Serialize};

macro_rules! functions {
    ($(#[$doc:meta])* $kind:ident by $lookup:ident { $($name:literal / $arity:literal => $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $kind {
            $(#[doc = concat!("`", $name, "/", $arity, "`")] $variant,)*
        }

        /// The function of this name and number of arguments.
        #[must_use]
        pub fn $lookup(name: &str, arity: usize) -> Option<$kind> {
            match (name, arity) {
                $(($name, $arity) => Some($kind::$variant),)*
                _ => None,
            }
        }
    };
}

functions! {
    /// A function from values to a value: its arguments are evaluated first.
    Fun by fun {
        "length" / 0 => Length,
        "utf8bytelength" / 0 => Utf8ByteLength,
        "not" / 0 => Not,
        "keys" / 0 => Keys,
        "keys_unsorted" / 0 => KeysUnsorted,
        "has" / 1 => Has,
        "contains" / 1 => Contains,
        "add" / 0 => Add,
        "floor" / 0 => Floor,
        "ceil" / 0 => Ceil,
        "round" / 0 => Round,
        "trunc" / 0 => Trunc,
        "sqrt" / 0 => Sqrt,
        "fabs" / 0 => Fabs,
        "abs" / 0 => Abs,
        "log" / 0 => Log,
        "log2" / 0 => Log2,
        "log10" / 0 => Log10,
        "exp" / 0 => Exp,
        "exp2" / 0 => Exp2,
        "pow" / 2 => Pow,
        "infinite" / 0 => Infinite,
        "nan" / 0 => Nan,
        "isinfinite" / 0 => IsInfinite,
        "isnan" / 0 => IsNan,
        "isnormal" / 0 => IsNormal,
        "tostring" / 0 => ToString,
        "tonumber" / 0 => ToNumber,
        "tojson" / 0 => ToJson,
        "fromjson" / 0 => FromJson,
        "type" / 0 => Type,
        "sort" / 0 => Sort,
        "_sort_by" / 1 => SortBy,
        "_group_by" / 1 => GroupBy,
        "_min_by" / 1 => MinBy,
        "_max_by" / 1 => MaxBy,
        "reverse" / 0 => Reverse,
        "unique" / 0 => Unique,
        "flatten" / 0 => Flatten,
        "_flatten" / 1 => FlattenBy,
        "transpose" / 0 => Transpose,
        "to_entries" / 0 => ToEntries,
        "from_entries" / 0 => FromEntries,
        "startswith" / 1 => StartsWith,
        "endswith" / 1 => EndsWith,
        "ltrimstr" / 1 => LeftTrimText,
        "rtrimstr" / 1 => RightTrimText,
        "trim" / 0 => Trim,
        "ltrim" / 0 => LeftTrim,
        "rtrim" / 0 => RightTrim,
        "explode" / 0 => Explode,
        "implode" / 0 => Implode,
        "split" / 1 => Split,
        "join" / 1 => Join,
        "ascii_downcase" / 0 => AsciiDowncase,
        "ascii_upcase" / 0 => AsciiUpcase,
        "indices" / 1 => Indices,
        "setpath" / 2 => SetPath,
        "delpaths" / 1 => DelPaths,
        "_match" / 2 => Match,
        "_test" / 2 => Test,
        "todate" / 0 => ToDate,
        "fromdate" / 0 => FromDate,
        "gmtime" / 0 => BrokenDown,
        "mktime" / 0 => MakeTime,
        "strftime" / 1 => FormatTime,
    }
}

functions! {
    /// A function that decides what is evaluated, how often and on what path.
    Control by control {
        "empty" / 0 => Empty,
        "error" / 0 => Error,
        "error" / 1 => ErrorWith,
        "first" / 1 => First,
        "last" / 1 => Last,
        "limit" / 2 => Limit,
        "until" / 2 => Until,
        "while" / 2 => While,
        "repeat" / 1 => Repeat,
        "recurse" / 1 => Recurse,
        "range" / 1 => Range,
        "range" / 2 => RangeFrom,
        "range" / 3 => RangeBy,
        "path" / 1 => Path,
        "getpath" / 1 => GetPath,
        "isempty" / 1 => IsEmpty,
        "select" / 1 => Select,
        "del" / 1 => Del,
    }
}
