//! Tasks: what all have in common, and each kind.
//!
//! Relies on the reader. Promises one entry in the list of tasks for each task, with its place. Knows no
//! case.

use super::fault::pointer;
use super::program::{Backoff, Block, Catch, Choice, Kind, Retry, Shape, Span, Task, TaskId, Template, Then};
use super::reader::{At, Reader, TASK_DEPTH_MAX, TASKS_MAX, single_pair, uses};
use crate::value::Value;

/// Properties that every task may have.
const COMMON: [&str; 7] = ["if", "input", "output", "export", "timeout", "then", "metadata"];
/// For each kind of task, its properties; the first names it. `for` comes before `do`, which it has too.
const KINDS: [&[&str]; 12] = [
    &["for", "while", "do"],
    &["call", "with"],
    &["do"],
    &["emit"],
    &["fork"],
    &["listen", "foreach"],
    &["raise"],
    &["run"],
    &["set"],
    &["switch"],
    &["try", "catch"],
    &["wait"],
];

/// Names by which extensions mean a kind of task.
fn extended_names(kind: &str) -> [&str; 3] {
    match kind {
        "do" | "fork" => [kind, "composite", "all"],
        _ => [kind, kind, "all"],
    }
}

impl<'v> Reader<'v> {
    /// A list of tasks that have one key each.
    pub(super) fn block(&mut self, at: &At<'v>) -> Block {
        let Some(items) = at.items() else {
            self.fault(&at.at, "a list of tasks stands here, each an object with its name as the only key");
            return Vec::new();
        };
        if items.is_empty() {
            self.fault(&at.at, "at least one task is needed");
        }
        let names: Vec<Option<&'v str>> =
            items.iter().map(|item| item.value.pairs().and_then(single_pair).map(|(name, _)| name)).collect();
        let mut block = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            let Some((name, value)) = item.value.pairs().and_then(single_pair) else {
                self.fault(&item.at, "a task is an object with its name as the only key");
                continue;
            };
            if names[..place].contains(&Some(name)) {
                self.fault(&item.at, format!("a task before it is called `{name}` too"));
            }
            let task = At { value, at: pointer(&item.at, name) };
            block.extend(self.task(name, &task, &names));
        }
        block
    }

    /// A task; `siblings` are the tasks that its `then` may name.
    pub(super) fn task(&mut self, name: &str, at: &At<'v>, siblings: &[Option<&'v str>]) -> Option<TaskId> {
        let place = self.tasks.len();
        if place >= TASKS_MAX {
            self.fault(&at.at, format!("there are more than {TASKS_MAX} tasks"));
            return None;
        }
        if self.depth >= TASK_DEPTH_MAX {
            self.fault(&at.at, format!("tasks nest deeper than {TASK_DEPTH_MAX} levels"));
            return None;
        }
        let kind_of = |at: &At<'v>| KINDS.iter().find(|kind| at.get(kind[0]).is_some());
        let Some(properties) = kind_of(at) else {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind[0]).collect();
            self.fault(&at.at, format!("a task has one of {}", known.join(", ")));
            return None;
        };
        let allowed: Vec<&str> = COMMON.iter().chain(*properties).copied().collect();
        self.object(at, &allowed);
        self.tasks.push(None);
        self.depth += 1;
        let task = self.task_within(name, at, siblings, properties[0]);
        self.depth -= 1;
        let id = TaskId::try_from(place).ok()?;
        self.tasks[place] = task;
        if self.within_extension { Some(id) } else { self.extended(id, properties[0]) }
    }

    fn task_within(
        &mut self,
        name: &str,
        at: &At<'v>,
        siblings: &[Option<&'v str>],
        kind: &str,
    ) -> Option<Task> {
        let condition = self.optional_expression(at, "if");
        let input = at.get("input").and_then(|at| self.shape(&at, "from"));
        let timeout = at.get("timeout").and_then(|at| self.timeout(&at));
        let then = at.get("then").and_then(|at| self.then(&at, siblings)).unwrap_or_default();
        self.metadata(at);
        let output = at.get("output").and_then(|at| self.shape(&at, "as"));
        let export = at.get("export").and_then(|at| self.shape(&at, "as"));
        let kind = self.kind(kind, at, siblings)?;
        let of_shapes = |name: &str| {
            let shapes = [&output, &export];
            shapes
                .iter()
                .filter_map(|shape| shape.as_ref()?.template.as_ref())
                .any(|template| uses(template, name))
        };
        let later = match &kind {
            Kind::Wait(_) | Kind::Try(..) | Kind::Listen { .. } | Kind::Extended { .. } => true,
            Kind::For { condition, .. } => condition
                .as_ref()
                .is_some_and(|condition| condition.globals.iter().any(|name| name == "input")),
            _ => false,
        };
        let keeps_raw = of_shapes("task");
        let keeps_input = later || of_shapes("input");
        let (name, at) = (name.to_owned(), at.at.clone());
        Some(Task { name, at, condition, input, output, export, timeout, then, kind, keeps_input, keeps_raw })
    }

    /// The task with what extensions put around it.
    fn extended(&mut self, mut id: TaskId, kind: &str) -> Option<TaskId> {
        let extensions = self.shared.as_ref().and_then(|shared| shared.get("extensions"));
        for item in extensions.and_then(|extensions| extensions.items()).unwrap_or_default() {
            let Some((name, value)) = item.value.pairs().and_then(single_pair) else { continue };
            let extension = At { value, at: pointer(&item.at, name) };
            let extend = extension.get("extend").and_then(|extend| extend.value.as_text());
            if !extend.is_some_and(|extend| extended_names(kind).contains(&extend)) {
                continue;
            }
            let variables = std::mem::take(&mut self.variables);
            self.within_extension = true;
            let when = self.optional_expression(&extension, "when");
            let before = extension.get("before").map(|at| self.block(&at)).unwrap_or_default();
            let after = extension.get("after").map(|at| self.block(&at)).unwrap_or_default();
            self.within_extension = false;
            self.variables = variables;
            let place = self.tasks.len();
            let Some(inner) = self.tasks.get_mut(usize::from(id)).and_then(Option::as_mut) else { continue };
            let wrapper = Task {
                name: inner.name.clone(),
                at: inner.at.clone(),
                condition: None,
                input: None,
                output: None,
                export: None,
                timeout: None,
                then: std::mem::take(&mut inner.then),
                kind: Kind::Extended { when, before, task: id, after },
                keeps_input: true,
                keeps_raw: false,
            };
            self.tasks.push(Some(wrapper));
            id = TaskId::try_from(place).ok()?;
        }
        Some(id)
    }

    fn then(&mut self, at: &At<'v>, siblings: &[Option<&'v str>]) -> Option<Then> {
        let target = self.text(at)?;
        Some(match target {
            "continue" => Then::Continue,
            "exit" => Then::Exit,
            "end" => Then::End,
            name => {
                let place = siblings.iter().position(|sibling| *sibling == Some(name));
                let Some(place) = place.and_then(|place| u16::try_from(place).ok()) else {
                    self.fault(&at.at, format!("there is no task `{name}` in the same list"));
                    return None;
                };
                Then::Go(place)
            }
        })
    }

    fn kind(&mut self, kind: &str, at: &At<'v>, siblings: &[Option<&'v str>]) -> Option<Kind> {
        let own = at.get(kind)?;
        match kind {
            "do" => Some(Kind::Do(self.block(&own))),
            "set" => self.set(&own),
            "switch" => self.switch(&own, siblings),
            "for" => self.for_each(at, &own),
            "fork" => self.fork(&own),
            "try" => self.try_catch(at, &own),
            "raise" => self.raise(&own),
            "wait" => self.span(&own).map(Kind::Wait),
            "emit" => self.emit(&own),
            "listen" => self.listen(at, &own),
            "call" => self.call(at, &own),
            _ => self.run(&own),
        }
    }

    fn set(&mut self, at: &At<'v>) -> Option<Kind> {
        match at.value {
            Value::Str(_) => self.expression(at).map(|filter| Kind::Set(Template::Expr(Box::new(filter)))),
            Value::Object(_) => Some(Kind::Set(self.template(at))),
            _ => {
                self.fault(&at.at, "`set` is an object or an expression");
                None
            }
        }
    }

    fn switch(&mut self, at: &At<'v>, siblings: &[Option<&'v str>]) -> Option<Kind> {
        let Some(items) = at.items().filter(|items| !items.is_empty()) else {
            self.fault(&at.at, "`switch` is a list of at least one case");
            return None;
        };
        let mut choices = Vec::new();
        let mut defaults = 0;
        for item in items {
            let Some((name, value)) = item.value.pairs().and_then(single_pair) else {
                self.fault(&item.at, "a case is an object with its name as the only key");
                continue;
            };
            let case = At { value, at: pointer(&item.at, name) };
            if !self.object(&case, &["when", "then"]) {
                continue;
            }
            let when = self.optional_expression(&case, "when");
            if case.get("when").is_none() {
                defaults += 1;
                if defaults > 1 {
                    self.fault(&case.at, "only one case may be without `when`");
                }
            }
            let then = self.required(&case, "then").and_then(|then| self.then(&then, siblings));
            choices.push(Choice { when, then: then.unwrap_or_default() });
        }
        // The case without a condition counts only if no other does, wherever it stands.
        choices.sort_by_key(|choice| choice.when.is_none());
        Some(Kind::Switch(choices))
    }

    /// The name of a variable, `otherwise` if there is none.
    pub(super) fn variable(&mut self, at: &At<'v>, key: &str, otherwise: &str) -> String {
        let Some(name) = self.optional_text(at, key) else { return otherwise.to_owned() };
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if !is_name {
            self.fault(&pointer(&at.at, key), format!("`{name}` cannot name a variable"));
        }
        name.to_owned()
    }

    /// Reads tasks within which variables have names.
    pub(super) fn block_with(&mut self, at: &At<'v>, variables: &[&str]) -> Block {
        let outside = self.variables.len();
        self.variables.extend(variables.iter().map(|name| (*name).to_owned()));
        let block = self.block(at);
        self.variables.truncate(outside);
        block
    }

    fn for_each(&mut self, at: &At<'v>, own: &At<'v>) -> Option<Kind> {
        if !self.object(own, &["each", "in", "at"]) {
            return None;
        }
        let each = self.variable(own, "each", "item");
        let index = self.variable(own, "at", "index");
        let within = self.required(own, "in").and_then(|within| self.expression(&within));
        let outside = self.variables.len();
        self.variables.extend([each.clone(), index.clone()]);
        let condition = self.optional_expression(at, "while");
        let block = self.required(at, "do").map(|block| self.block(&block));
        self.variables.truncate(outside);
        Some(Kind::For { each, at: index, within: within?, condition, block: block? })
    }

    fn fork(&mut self, at: &At<'v>) -> Option<Kind> {
        if !self.object(at, &["branches", "compete"]) {
            return None;
        }
        let compete = self.flag(at, "compete", false);
        let branches = self.required(at, "branches").map(|branches| self.block(&branches))?;
        Some(Kind::Fork { branches, compete })
    }

    fn try_catch(&mut self, at: &At<'v>, own: &At<'v>) -> Option<Kind> {
        let block = self.block(own);
        let catch = self.required(at, "catch")?;
        if !self.object(&catch, &["errors", "as", "when", "exceptWhen", "retry", "do"]) {
            return None;
        }
        let with = catch.get("errors").and_then(|errors| self.error_filter(&errors));
        let variable = self.variable(&catch, "as", "error");
        let outside = self.variables.len();
        self.variables.push(variable.clone());
        let when = self.optional_expression(&catch, "when");
        let except = self.optional_expression(&catch, "exceptWhen");
        let retry = catch.get("retry").and_then(|retry| self.retry(&retry));
        let handler = catch.get("do").map(|handler| self.block(&handler));
        self.variables.truncate(outside);
        Some(Kind::Try(block, Box::new(Catch { with, variable, when, except, retry, block: handler })))
    }

    fn error_filter(&mut self, at: &At<'v>) -> Option<Template> {
        if !self.object(at, &["with"]) {
            return None;
        }
        let with = self.required(at, "with")?;
        let known = ["type", "status", "instance", "title", "detail", "details"];
        self.object(&with, &known).then(|| self.template(&with))
    }

    /// A retry policy, or the name of one in `use.retries`.
    fn retry(&mut self, at: &At<'v>) -> Option<Retry> {
        let at = match at.value.as_text() {
            Some(name) => self.named("retries", name, &at.at)?,
            None => at.clone(),
        };
        if !self.object(&at, &["when", "exceptWhen", "delay", "limit", "backoff", "jitter"]) {
            return None;
        }
        let mut retry = Retry {
            when: self.optional_expression(&at, "when"),
            except: self.optional_expression(&at, "exceptWhen"),
            delay: at.get("delay").and_then(|delay| self.span(&delay)),
            ..Retry::default()
        };
        if let Some(backoff) = at.get("backoff") {
            retry.backoff = self.backoff(&backoff);
        }
        if let Some(jitter) = at.get("jitter")
            && self.object(&jitter, &["from", "to"])
        {
            let from = self.required(&jitter, "from").and_then(|from| self.span(&from));
            let to = self.required(&jitter, "to").and_then(|to| self.span(&to));
            if let (Some(Span::Millis(from)), Some(Span::Millis(to))) = (&from, &to)
                && from > to
            {
                self.fault(&jitter.at, "the jitter starts after it ends");
            }
            retry.jitter = from.zip(to);
        }
        if let Some(limit) = at.get("limit")
            && self.object(&limit, &["attempt", "duration"])
        {
            retry.duration = limit.get("duration").and_then(|duration| self.span(&duration));
            if let Some(attempt) = limit.get("attempt")
                && self.object(&attempt, &["count", "duration"])
            {
                retry.attempt = attempt.get("duration").and_then(|duration| self.span(&duration));
                if let Some(count) = attempt.get("count") {
                    retry.count = count.value.as_int().and_then(|count| u64::try_from(count).ok());
                    if retry.count.is_none() {
                        self.fault(&count.at, "a count is a whole number, not below nought");
                    }
                }
            }
        }
        Some(retry)
    }

    fn backoff(&mut self, at: &At<'v>) -> Backoff {
        let kinds = [
            ("constant", Backoff::Constant),
            ("linear", Backoff::Linear),
            ("exponential", Backoff::Exponential),
        ];
        self.object(at, &kinds.map(|(name, _)| name));
        let found: Vec<(At<'v>, Backoff)> =
            kinds.iter().filter_map(|(name, kind)| at.get(name).map(|at| (at, *kind))).collect();
        let [(own, kind)] = &found[..] else {
            self.fault(&at.at, "a backoff is one of constant, linear, exponential");
            return Backoff::Constant;
        };
        self.object(own, &[]);
        *kind
    }

    fn raise(&mut self, at: &At<'v>) -> Option<Kind> {
        if !self.object(at, &["error"]) {
            return None;
        }
        let error = self.required(at, "error")?;
        let error = match error.value.as_text() {
            Some(name) => self.named("errors", name, &error.at)?,
            None => error,
        };
        self.error(&error).map(Kind::Raise)
    }

    /// An error's description (RFC 7807).
    pub(super) fn error(&mut self, at: &At<'v>) -> Option<Template> {
        if !self.object(at, &["type", "status", "instance", "title", "detail"]) {
            return None;
        }
        self.required(at, "type");
        if let Some(status) = self.required(at, "status") {
            let is_expression = status.value.as_text().is_some_and(|text| text.starts_with("${"));
            if status.value.as_int().is_none() && !is_expression {
                self.fault(&status.at, "a status is a whole number");
            }
        }
        Some(self.template(at))
    }

    /// What every kind of shape needs once more.
    pub(super) fn optional_shape(&mut self, at: &At<'v>, name: &str, key: &str) -> Option<Shape> {
        let found = at.get(name)?;
        self.shape(&found, key)
    }
}
