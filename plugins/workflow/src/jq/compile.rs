//! From the text of an expression to its stored form.
//!
//! Relies on jaq's lexer and parser. Promises to refuse whatever could differ between replicas or reach
//! outside (clock, environment, input, output), unknown names, and texts so large or deep that reading them
//! could run out of stack. Knows no evaluation.

use std::collections::BTreeMap;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def as ParsedDef, Pattern as ParsedPattern, Term};
use jaq_core::load::{Lexer, Parser};
use jaq_core::{ops, path};

use super::native;
use super::prelude::PRELUDE;
use super::term::{Compare, Def, Expr, Filter, Format, Math, Part, Pattern, Step};
use crate::value::Value;

/// The longest text, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// The deepest nesting of brackets. The parser calls itself for each.
const BRACKETS_MAX: usize = 48;
/// The most keywords and signs: each can make the parser call itself once more, or nest the term once more.
const PREFIXES_MAX: usize = 400;
/// The deepest nesting of the stored form.
const NESTING_MAX: u16 = 250;

/// Names that jq has and a state machine has not, with what to use instead.
const REFUSED: &[(&str, &str)] = &[
    ("now", "there is no clock; use $task.startedAt or $workflow.startedAt"),
    ("localtime", "there is no local time; use gmtime"),
    ("strflocaltime", "there is no local time; use strftime"),
    ("env", "there is no environment"),
    ("input", "there is no input besides `.` and $input"),
    ("inputs", "there is no input besides `.` and $input"),
    ("debug", "there is no output"),
    ("stderr", "there is no output"),
    ("input_filename", "there are no files"),
    ("halt", "use the task `raise`"),
    ("halt_error", "use the task `raise`"),
];

/// What a name stands for where a term is compiled.
enum Bound<'s> {
    Value(&'s str),
    Label(&'s str),
    Argument(&'s str),
    Def(&'s str, usize),
}

/// Compiles one text.
struct Compiler<'s, 'v> {
    /// Bindings around the current term, the innermost last.
    scope: Vec<Bound<'s>>,
    /// Names the engine provides.
    known: &'v dyn Fn(&str) -> bool,
    defs: Vec<Def>,
    /// Places in `defs` by name and arity.
    placed: BTreeMap<(String, usize), u16>,
    globals: Vec<String>,
    depth: u16,
}

/// Compiles an expression; `known` tells the variables the engine provides, without the dollar sign.
///
/// # Errors
///
/// A sentence that says what is wrong.
pub fn compile(text: &str, known: &dyn Fn(&str) -> bool) -> Result<Filter, String> {
    check_size(text)?;
    let tokens = Lexer::new(text).lex().map_err(|errors| lexing(text, &errors))?;
    let term = Parser::new(&tokens).parse(|parser| parser.term()).map_err(|errors| {
        let Some((expected, found)) = errors.first() else { return "it does not read".to_owned() };
        let found = found.map_or("the end", |token| token.as_str());
        format!("expected {} before `{}`", expected.as_str(), shorten(found))
    })?;
    let mut compiler = Compiler {
        scope: Vec::new(),
        known,
        defs: Vec::new(),
        placed: BTreeMap::new(),
        globals: Vec::new(),
        depth: 0,
    };
    let main = compiler.term(&term)?;
    let reads_definition = reads_definition(text);
    Ok(Filter { defs: compiler.defs, main, globals: compiler.globals, reads_definition })
}

/// Parts of descriptors that need no definition.
const WITHOUT_DEFINITION: [&str; 6] = [".id", ".name", ".reference", ".input", ".output", ".startedAt"];

/// Whether the text may look at a definition: whether it takes anything else of a descriptor.
fn reads_definition(text: &str) -> bool {
    let more = |name: &str| {
        let mut uses = text.split(name).skip(1);
        uses.any(|rest| !WITHOUT_DEFINITION.iter().any(|part| rest.starts_with(part)))
    };
    more("$workflow") || more("$task")
}

fn lexing(text: &str, errors: &[(jaq_core::load::lex::Expect<&str>, &str)]) -> String {
    let Some((expected, at)) = errors.first() else { return "it does not read".to_owned() };
    let found = if at.is_empty() { "the end" } else { at };
    let place = text.len() - at.len();
    format!("expected {} before `{}` (byte {place})", expected.as_str(), shorten(found))
}

fn shorten(text: &str) -> String {
    text.chars().take(20).collect()
}

/// Refuses what could take the parser too deep, before it starts.
fn check_size(text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("it has {} bytes, more than {TEXT_BYTES_MAX}", text.len()));
    }
    let mut brackets = 0_usize;
    let mut prefixes = 0_usize;
    for letter in text.chars() {
        match letter {
            '(' | '[' | '{' => brackets += 1,
            ')' | ']' | '}' => brackets = brackets.saturating_sub(1),
            '-' | '|' | ',' | '+' | '*' | '/' | '%' | '=' | '<' | '>' | '?' => prefixes += 1,
            _ => {}
        }
        if brackets > BRACKETS_MAX {
            return Err(format!("its brackets nest deeper than {BRACKETS_MAX}"));
        }
    }
    let calls_itself = |word: &&str| {
        matches!(*word, "if" | "elif" | "try" | "def" | "label" | "reduce" | "foreach" | "as" | "and" | "or")
    };
    prefixes += text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(calls_itself).count();
    if prefixes > PREFIXES_MAX {
        return Err(format!("it has more than {PREFIXES_MAX} signs and keywords"));
    }
    Ok(())
}

fn pair(first: Expr, second: Expr) -> Box<(Expr, Expr)> {
    Box::new((first, second))
}

impl<'s> Compiler<'s, '_> {
    fn term(&mut self, term: &Term<&'s str>) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(format!("it nests deeper than {NESTING_MAX} levels"));
        }
        let compiled = self.term_within(term);
        self.depth -= 1;
        compiled
    }

    fn boxed(&mut self, term: &Term<&'s str>) -> Result<Box<Expr>, String> {
        self.term(term).map(Box::new)
    }

    fn term_within(&mut self, term: &Term<&'s str>) -> Result<Expr, String> {
        Ok(match term {
            Term::Id => Expr::Id,
            Term::Recurse => Expr::Dots,
            Term::Num(text) => Expr::Const(number(text)?),
            Term::Str(format, parts) => self.text(*format, parts)?,
            Term::Arr(None) => Expr::Const(Value::empty_array()),
            Term::Arr(Some(inner)) => Expr::Array(self.boxed(inner)?),
            Term::Obj(entries) if entries.is_empty() => Expr::Const(Value::empty_object()),
            Term::Obj(entries) => Expr::Object(
                entries
                    .iter()
                    .map(|(key, value)| self.entry(key, value.as_ref()))
                    .collect::<Result<_, _>>()?,
            ),
            Term::Neg(inner) => match self.term(inner)? {
                Expr::Const(Value::Int(number)) => Expr::Const(Value::Int(-number)),
                Expr::Const(Value::Float(number)) => Expr::Const(Value::Float(-number)),
                other => Expr::Neg(Box::new(other)),
            },
            Term::BinOp(left, op, right) => self.operation(left, op, right)?,
            Term::Label(name, body) => {
                self.scope.push(Bound::Label(name));
                let body = self.boxed(body);
                self.scope.pop();
                Expr::Label(body?)
            }
            Term::Break(name) => Expr::Break(self.label(name)?),
            Term::Fold(kind, source, pattern, arguments) => self.fold(kind, source, pattern, arguments)?,
            Term::TryCatch(body, catch) => {
                let body = self.boxed(body)?;
                Expr::Try(body, catch.as_ref().map(|catch| self.boxed(catch)).transpose()?)
            }
            Term::IfThenElse(branches, otherwise) => self.branches(branches, otherwise.as_deref())?,
            Term::Def(defs, body) => self.define(defs, body)?,
            Term::Call(name, arguments) => self.call(name, arguments)?,
            Term::Var(name) => self.variable(name)?,
            Term::Path(head, steps) => {
                let head = self.boxed(head)?;
                let steps: Result<_, String> =
                    steps.0.iter().map(|(part, opt)| Ok((self.step(part)?, is_optional(*opt)))).collect();
                Expr::Path(head, steps?)
            }
        })
    }

    fn step(&mut self, part: &path::Part<Term<&'s str>>) -> Result<Step, String> {
        Ok(match part {
            path::Part::Index(index) => Step::Index(self.term(index)?),
            path::Part::Range(None, None) => Step::Each,
            path::Part::Range(from, to) => {
                let from = from.as_ref().map(|from| self.term(from)).transpose()?;
                Step::Slice(from, to.as_ref().map(|to| self.term(to)).transpose()?)
            }
        })
    }

    fn text(
        &mut self,
        format: Option<&str>,
        parts: &[StrPart<&'s str, Term<&'s str>>],
    ) -> Result<Expr, String> {
        let format = format.map_or(Ok(Format::Text), read_format)?;
        let mut compiled: Vec<Part> = Vec::new();
        let mut letters = String::new();
        for part in parts {
            match part {
                StrPart::Str(text) => letters.push_str(text),
                StrPart::Char(letter) => letters.push(*letter),
                StrPart::Term(term) => {
                    if !letters.is_empty() {
                        compiled.push(Part::Text(std::mem::take(&mut letters)));
                    }
                    compiled.push(Part::Term(self.term(term)?));
                }
            }
        }
        if compiled.is_empty() {
            return Ok(Expr::Const(Value::text(&letters)));
        }
        if !letters.is_empty() {
            compiled.push(Part::Text(letters));
        }
        Ok(Expr::Text(format, compiled))
    }

    /// `{a: f}`, and the short forms `{a}`, `{$x}`, `{"a"}`.
    fn entry(&mut self, key: &Term<&'s str>, value: Option<&Term<&'s str>>) -> Result<(Expr, Expr), String> {
        if let (Term::Var(name), None) = (key, value) {
            return Ok((Expr::Const(Value::text(&name[1..])), self.variable(name)?));
        }
        let key = self.term(key)?;
        let value = match value {
            Some(value) => self.term(value)?,
            None => Expr::Path(Box::new(Expr::Id), vec![(Step::Index(key.clone()), false)]),
        };
        Ok((key, value))
    }

    fn operation(
        &mut self,
        left: &Term<&'s str>,
        op: &BinaryOp<&'s str>,
        right: &Term<&'s str>,
    ) -> Result<Expr, String> {
        if let BinaryOp::Pipe(Some(pattern)) = op {
            let source = self.term(left)?;
            let (pattern, body) = self.within(pattern, |compiler| compiler.term(right))?;
            return Ok(Expr::Bind(pattern, pair(source, body)));
        }
        let both = pair(self.term(left)?, self.term(right)?);
        Ok(match op {
            BinaryOp::Pipe(_) => Expr::Pipe(both),
            BinaryOp::Comma => Expr::Comma(both),
            BinaryOp::Alt => Expr::Alt(both),
            BinaryOp::Or => Expr::Or(both),
            BinaryOp::And => Expr::And(both),
            BinaryOp::Math(op) => Expr::Math(math(*op), both),
            BinaryOp::Cmp(op) => Expr::Compare(comparison(*op), both),
            BinaryOp::Assign => Expr::Assign(both),
            BinaryOp::Update => Expr::Update(both),
            BinaryOp::UpdateMath(op) => Expr::UpdateMath(math(*op), both),
            BinaryOp::UpdateAlt => Expr::UpdateAlt(both),
        })
    }

    /// Compiles a pattern, and something within the names it binds.
    fn within<T>(
        &mut self,
        pattern: &ParsedPattern<&'s str>,
        body: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<(Pattern, T), String> {
        let outside = self.scope.len();
        let compiled = self.pattern(pattern);
        let both = compiled.and_then(|pattern| Ok((pattern, body(self)?)));
        self.scope.truncate(outside);
        both
    }

    /// A pattern; its names are in scope afterwards, in the order in which they are bound.
    fn pattern(&mut self, pattern: &ParsedPattern<&'s str>) -> Result<Pattern, String> {
        Ok(match pattern {
            ParsedPattern::Var(name) => {
                self.scope.push(Bound::Value(name));
                Pattern::Var
            }
            ParsedPattern::Arr(items) => {
                let indexed = items.iter().enumerate();
                Pattern::Index(
                    indexed
                        .map(|(index, item)| Ok((Expr::Const(Value::count(index)), self.pattern(item)?)))
                        .collect::<Result<_, String>>()?,
                )
            }
            ParsedPattern::Obj(entries) => Pattern::Index(
                entries
                    .iter()
                    .map(|(key, item)| Ok((self.term(key)?, self.pattern(item)?)))
                    .collect::<Result<_, String>>()?,
            ),
        })
    }

    fn fold(
        &mut self,
        kind: &str,
        source: &Term<&'s str>,
        pattern: &ParsedPattern<&'s str>,
        arguments: &[Term<&'s str>],
    ) -> Result<Expr, String> {
        let source = self.term(source)?;
        let (Some(init), Some(update)) = (arguments.first(), arguments.get(1)) else {
            return Err(format!("`{kind}` needs a start and an update: {kind} f as $x (start; update)"));
        };
        let init = self.term(init)?;
        let extract = arguments.get(2);
        let (pattern, (update, extract)) = self.within(pattern, |compiler| {
            let update = compiler.term(update)?;
            Ok((update, extract.map(|extract| compiler.term(extract)).transpose()?))
        })?;
        match (kind, arguments.len()) {
            ("reduce", 2) => Ok(Expr::Reduce(pattern, Box::new((source, init, update)))),
            ("foreach", 2 | 3) => {
                Ok(Expr::Foreach(pattern, Box::new((source, init, update, extract.unwrap_or(Expr::Id)))))
            }
            _ => Err(format!("`{kind}` has too many arguments")),
        }
    }

    fn branches(
        &mut self,
        branches: &[(Term<&'s str>, Term<&'s str>)],
        otherwise: Option<&Term<&'s str>>,
    ) -> Result<Expr, String> {
        let mut compiled = otherwise.map_or(Ok(Expr::Id), |otherwise| self.term(otherwise))?;
        for (condition, body) in branches.iter().rev() {
            compiled = Expr::If(Box::new((self.term(condition)?, self.term(body)?, compiled)));
        }
        Ok(compiled)
    }

    fn define(
        &mut self,
        defs: &[ParsedDef<&'s str, Term<&'s str>>],
        body: &Term<&'s str>,
    ) -> Result<Expr, String> {
        let Some((def, rest)) = defs.split_first() else { return self.term(body) };
        self.scope.push(Bound::Def(def.name, def.args.len()));
        let both = self.definition(def).and_then(|def| Ok((def, self.define(rest, body)?)));
        self.scope.pop();
        Ok(Expr::Define(Box::new(both?)))
    }

    /// A definition whose own name is the innermost binding.
    fn definition(&mut self, def: &ParsedDef<&'s str, Term<&'s str>>) -> Result<Def, String> {
        let outside = self.scope.len();
        for name in &def.args {
            self.scope.push(if name.starts_with('$') { Bound::Value(name) } else { Bound::Argument(name) });
        }
        let body = self.term(&def.body);
        self.scope.truncate(outside);
        Ok(Def { values: def.args.iter().map(|name| name.starts_with('$')).collect(), body: body? })
    }

    fn distance(&self, is_it: impl Fn(&Bound<'s>) -> bool) -> Option<u16> {
        self.scope.iter().rev().position(is_it).and_then(|distance| u16::try_from(distance).ok())
    }

    fn label(&self, name: &str) -> Result<u16, String> {
        self.distance(|bound| matches!(bound, Bound::Label(other) if *other == name))
            .ok_or_else(|| format!("there is no label `{name}`"))
    }

    fn variable(&mut self, name: &'s str) -> Result<Expr, String> {
        if let Some(distance) = self.distance(|bound| matches!(bound, Bound::Value(other) if *other == name))
        {
            return Ok(Expr::Local(distance));
        }
        let bare = &name[1..];
        if !(self.known)(bare) {
            return Err(format!("there is no variable `{name}` here"));
        }
        if !self.globals.iter().any(|known| known == bare) {
            self.globals.push(bare.to_owned());
        }
        Ok(Expr::Global(bare.to_owned()))
    }

    fn call(&mut self, name: &'s str, arguments: &[Term<&'s str>]) -> Result<Expr, String> {
        if name.starts_with('@') {
            let format = read_format(name)?;
            return Ok(Expr::Text(format, vec![Part::Term(Expr::Id)]));
        }
        if arguments.is_empty() {
            match name {
                "null" => return Ok(Expr::Const(Value::Null)),
                "true" => return Ok(Expr::Const(Value::Bool(true))),
                "false" => return Ok(Expr::Const(Value::Bool(false))),
                _ => {}
            }
        }
        let arity = arguments.len();
        let bound = self.distance(|bound| match bound {
            Bound::Def(other, other_arity) => *other == name && *other_arity == arity,
            Bound::Argument(other) => *other == name && arity == 0,
            _ => false,
        });
        if let Some(distance) = bound {
            let place = self.scope.len() - 1 - usize::from(distance);
            if matches!(self.scope[place], Bound::Argument(_)) {
                return Ok(Expr::Argument(distance));
            }
            return Ok(Expr::Call(distance, self.arguments(arguments)?));
        }
        if let Some(fun) = native::fun(name, arity) {
            return Ok(Expr::Fun(fun, self.arguments(arguments)?));
        }
        if let Some(control) = native::control(name, arity) {
            return Ok(Expr::Control(control, self.arguments(arguments)?));
        }
        if let Some(place) = self.prelude(name, arity)? {
            return Ok(Expr::Prelude(place, self.arguments(arguments)?));
        }
        match REFUSED.iter().find(|(refused, _)| *refused == name) {
            Some((_, advice)) => Err(format!("`{name}` is not available: {advice}")),
            None => Err(format!("there is no function `{name}` with {arity} arguments")),
        }
    }

    fn arguments(&mut self, arguments: &[Term<&'s str>]) -> Result<Vec<Expr>, String> {
        arguments.iter().map(|argument| self.term(argument)).collect()
    }

    /// Takes a definition of the prelude along, if there is one.
    fn prelude(&mut self, name: &str, arity: usize) -> Result<Option<u16>, String> {
        let key = (name.to_owned(), arity);
        if let Some(place) = self.placed.get(&key) {
            return Ok(Some(*place));
        }
        let Some((_, _, text)) = PRELUDE.iter().find(|(known, args, _)| *known == name && *args == arity)
        else {
            return Ok(None);
        };
        let place = u16::try_from(self.defs.len()).map_err(|_| "it uses too many functions".to_owned())?;
        // Placed before it is compiled, so that it can call itself.
        self.placed.insert(key, place);
        self.defs.push(Def { values: Vec::new(), body: Expr::Id });
        let def = self.of_prelude(text)?;
        self.defs[usize::from(place)] = def;
        Ok(Some(place))
    }

    /// Compiles the text of a definition with nothing around it.
    fn of_prelude(&mut self, text: &'static str) -> Result<Def, String> {
        let broken = || format!("the prelude does not read: {text}");
        let tokens = Lexer::new(text).lex().map_err(|_| broken())?;
        let term = Parser::new(&tokens).parse(|parser| parser.term()).map_err(|_| broken())?;
        let Term::Def(defs, _) = &term else { return Err(broken()) };
        let Some(def) = defs.first() else { return Err(broken()) };
        let mut inner = Compiler {
            scope: Vec::new(),
            known: &|_| false,
            defs: std::mem::take(&mut self.defs),
            placed: std::mem::take(&mut self.placed),
            globals: Vec::new(),
            depth: 0,
        };
        let compiled = inner.definition(def);
        self.defs = inner.defs;
        self.placed = inner.placed;
        compiled
    }
}

fn is_optional(opt: path::Opt) -> bool {
    matches!(opt, path::Opt::Optional)
}

fn number(text: &str) -> Result<Value, String> {
    if let Ok(whole) = text.parse::<i64>() {
        return Ok(Value::Int(whole));
    }
    text.parse::<f64>().map(Value::number).map_err(|_| format!("`{text}` is not a number"))
}

fn read_format(name: &str) -> Result<Format, String> {
    Ok(match name {
        "@text" => Format::Text,
        "@json" => Format::Json,
        "@csv" => Format::Csv,
        "@tsv" => Format::Tsv,
        "@html" => Format::Html,
        "@uri" => Format::Uri,
        "@sh" => Format::Sh,
        "@base64" => Format::Base64,
        "@base64d" => Format::Base64d,
        _ => return Err(format!("there is no format `{name}`")),
    })
}

fn math(op: ops::Math) -> Math {
    match op {
        ops::Math::Add => Math::Add,
        ops::Math::Sub => Math::Sub,
        ops::Math::Mul => Math::Mul,
        ops::Math::Div => Math::Div,
        ops::Math::Rem => Math::Rem,
    }
}

fn comparison(op: ops::Cmp) -> Compare {
    match op {
        ops::Cmp::Lt => Compare::Lt,
        ops::Cmp::Le => Compare::Le,
        ops::Cmp::Gt => Compare::Gt,
        ops::Cmp::Ge => Compare::Ge,
        ops::Cmp::Eq => Compare::Eq,
        ops::Cmp::Ne => Compare::Ne,
    }
}
