//! The state of one evaluation: what it may still take, and what values and names are while it goes on.
//!
//! Relies on the stored form. Promises that nothing is done that was not counted first. Knows no term's
//! meaning.

use std::rc::Rc;

use super::run::eval;
use super::term::{Def, Expr, Filter};
use crate::value::{TooDeep, Value};

/// How much one evaluation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Steps: evaluated terms, and items and letters that are walked or built.
    pub fuel: u64,
    /// Levels of nested evaluation.
    pub depth: u32,
}

/// Where an expression's free variables come from.
pub trait Globals {
    /// The value of a variable, by its name without the dollar sign.
    ///
    /// # Errors
    ///
    /// A failure, for variables that may not be read.
    fn global(&self, name: &str) -> Result<Value, Failure>;
}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The expression raised an error; its message.
    Error(String),
    /// It took more steps than it may.
    OutOfFuel,
    /// It nested deeper than it may.
    TooDeep,
    /// It read what it may not.
    Forbidden(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error(message) | Self::Forbidden(message) => out.write_str(message),
            Self::OutOfFuel => out.write_str("the expression takes more steps than it may"),
            Self::TooDeep => out.write_str("the expression nests deeper than it may"),
        }
    }
}

/// Why evaluation does not go on.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    /// An error that `try` catches.
    Error(Value),
    /// A break to the label of this number.
    Break(u32),
    /// A failure that nothing in the expression catches.
    Failure(Box<Failure>),
    /// What comes next stopped; whoever asked it knows why.
    Downstream,
}

impl Stop {
    /// An error with this message.
    pub(super) fn error(message: &str) -> Self {
        Self::Error(Value::text(message))
    }
}

impl From<TooDeep> for Stop {
    fn from(error: TooDeep) -> Self {
        Self::error(&error.to_string())
    }
}

/// Whether to go on.
pub(super) type Flow = Result<(), Stop>;

/// The path by which a value was reached, where that matters.
#[derive(Clone)]
pub(super) enum Trace {
    /// Nobody asks.
    Off,
    /// From the start, by these steps.
    On(Option<Rc<Link>>),
    /// It was made, not reached.
    Lost,
}

/// The last step of a path and those before it.
pub(super) struct Link {
    pub(super) step: Value,
    pub(super) before: Option<Rc<Link>>,
}

impl Trace {
    pub(super) fn then(&self, step: impl FnOnce() -> Value) -> Result<Self, Stop> {
        match self {
            Self::Off => Ok(Self::Off),
            Self::On(before) => Ok(Self::On(Some(Rc::new(Link { step: step(), before: before.clone() })))),
            Self::Lost => Err(Stop::error("Invalid path expression: it does not lead into its input")),
        }
    }

    /// For a value that was made rather than reached.
    pub(super) fn lost(&self) -> Self {
        if matches!(self, Self::Off) { Self::Off } else { Self::Lost }
    }

    pub(super) fn steps(&self) -> Result<Vec<Value>, Stop> {
        let Self::On(last) = self else {
            return Err(Stop::error("Invalid path expression: it does not lead into its input"));
        };
        let mut steps = Vec::new();
        let mut at = last.as_ref();
        while let Some(link) = at {
            steps.push(link.step.clone());
            at = link.before.as_ref();
        }
        steps.reverse();
        Ok(steps)
    }
}

/// A value, and how it was reached.
#[derive(Clone)]
pub(super) struct Traced {
    pub(super) value: Value,
    pub(super) trace: Trace,
}

impl Traced {
    pub(super) fn plain(value: Value) -> Self {
        Self { value, trace: Trace::Off }
    }
}

/// What a name is bound to.
pub(super) enum Bind<'p, 'e> {
    Value(Value),
    Argument(&'p Expr, Env<'p, 'e>),
    Def(&'p Def),
    Label(u32),
}

/// Bindings, the innermost first. They live on the stack: whatever is called has returned before they go.
pub(super) struct Node<'p, 'e> {
    pub(super) bind: Bind<'p, 'e>,
    pub(super) outer: Env<'p, 'e>,
}

pub(super) type Env<'p, 'e> = Option<&'e Node<'p, 'e>>;

/// What an output is passed to.
pub(super) type Out<'o, 'p> = &'o mut dyn FnMut(&mut Machine<'p>, Traced) -> Flow;

/// The state of one evaluation.
pub(super) struct Machine<'p> {
    pub(super) fuel: u64,
    pub(super) depth: u32,
    depth_max: u32,
    /// Labels given out.
    pub(super) labels: u32,
    pub(super) defs: &'p [Def],
    pub(super) globals: &'p dyn Globals,
}

/// Evaluates an expression on a value and returns its first output; null if it has none. The fuel that is
/// left stays in `bounds`.
///
/// # Errors
///
/// [`Failure`].
pub fn evaluate(
    filter: &Filter,
    input: &Value,
    globals: &dyn Globals,
    bounds: &mut Bounds,
) -> Result<Value, Failure> {
    let mut machine = Machine {
        fuel: bounds.fuel,
        depth: 0,
        depth_max: bounds.depth,
        labels: 0,
        defs: &filter.defs,
        globals,
    };
    let mut first = None;
    let flow = eval(&mut machine, &filter.main, None, Traced::plain(input.clone()), &mut |_, output| {
        first = Some(output.value);
        Err(Stop::Downstream)
    });
    bounds.fuel = machine.fuel;
    match (first, flow) {
        (Some(value), _) => Ok(value),
        (None, Ok(())) => Ok(Value::Null),
        (None, Err(stop)) => Err(match stop {
            Stop::Error(Value::Str(message)) => Failure::Error(message.as_ref().to_owned()),
            Stop::Error(value) => Failure::Error(format!("{value} (not a string)")),
            Stop::Failure(failure) => *failure,
            Stop::Break(_) | Stop::Downstream => Failure::Error("break".to_owned()),
        }),
    }
}

impl<'p> Machine<'p> {
    /// Takes fuel for work of this size, before it is done.
    pub(super) fn charge(&mut self, units: usize) -> Flow {
        match self.fuel.checked_sub(units as u64) {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => {
                self.fuel = 0;
                Err(Stop::Failure(Box::new(Failure::OutOfFuel)))
            }
        }
    }

    /// Goes one level deeper.
    pub(super) fn deeper(&mut self) -> Flow {
        self.depth += 1;
        if self.depth > self.depth_max { Err(Stop::Failure(Box::new(Failure::TooDeep))) } else { Ok(()) }
    }

    /// Comes back from a level.
    pub(super) fn shallower(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}
