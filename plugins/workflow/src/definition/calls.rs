//! Tasks that have something done outside: `call` and `run`.
//!
//! Relies on the reader. Promises that workers receive arguments whose form is known: endpoints as objects,
//! authentications by their contents rather than their name. Knows no protocol.

use super::fault::pointer;
use super::program::{Await, Kind, Return, TaskId, Template};
use super::reader::{At, Reader};
use crate::value::Value;

/// The functions of the specification, with their parameters: those that must be there first.
const FUNCTIONS: [(&str, &[&str], &[&str]); 4] = [
    ("http", &["method", "endpoint"], &["headers", "body", "query", "output", "redirect"]),
    ("grpc", &["proto", "service", "method"], &["arguments", "authentication"]),
    ("openapi", &["document", "operationId"], &["parameters", "authentication", "output", "redirect"]),
    (
        "asyncapi",
        &["document"],
        &["channel", "operation", "server", "protocol", "message", "subscription", "authentication"],
    ),
];
const SCHEMES: [&str; 6] = ["basic", "bearer", "certificate", "digest", "oauth2", "oidc"];

impl<'v> Reader<'v> {
    pub(super) fn call(&mut self, task: &At<'v>, at: &At<'v>) -> Option<Kind> {
        let name = self.text(at)?;
        let with = task.get("with");
        if let Some(with) = &with
            && with.value.pairs().is_none()
        {
            self.fault(&with.at, "the arguments are an object");
            return None;
        }
        if let Some((_, required, optional)) = FUNCTIONS.iter().find(|(known, _, _)| *known == name) {
            let Some(with) = with else {
                self.fault(&task.at, "`with` is missing");
                return None;
            };
            let allowed: Vec<&str> = required.iter().chain(*optional).copied().collect();
            self.object(&with, &allowed);
            for key in *required {
                self.required(&with, key);
            }
            return Some(Kind::Call { function: name.to_owned(), with: self.arguments(&with) });
        }
        let template =
            with.as_ref().map_or(Template::Const(Value::empty_object()), |with| self.template(with));
        let is_own = self.shared.as_ref().and_then(|shared| shared.get("functions")?.get(name)).is_some();
        if is_own {
            return self.function(name, &at.at).map(|task| Kind::Invoke { task, with: template });
        }
        if let Some((_, catalog)) = name.split_once('@')
            && catalog != "default"
            && self.shared.as_ref().and_then(|shared| shared.get("catalogs")?.get(catalog)).is_none()
        {
            self.fault(&at.at, format!("there is no catalog `{catalog}` in use.catalogs"));
        }
        Some(Kind::Call { function: name.to_owned(), with: template })
    }

    /// A function of `use.functions`, compiled once.
    fn function(&mut self, name: &str, caller: &str) -> Option<TaskId> {
        match self.functions.get(name) {
            Some(Some(task)) => return Some(*task),
            Some(None) => {
                self.fault(caller, format!("the function `{name}` calls itself"));
                return None;
            }
            None => {}
        }
        let at = self.named("functions", name, caller)?;
        self.functions.insert(name.to_owned(), None);
        let variables = std::mem::take(&mut self.variables);
        let task = self.task(name, &at, &[]);
        self.variables = variables;
        self.functions.insert(name.to_owned(), task);
        task
    }

    /// Arguments of a function of the specification.
    fn arguments(&mut self, with: &At<'v>) -> Template {
        let mut pairs = Vec::new();
        for (key, value) in with.pairs().unwrap_or_default() {
            let template = match key {
                "endpoint" => self.endpoint(&value),
                "authentication" => self.authentication(&value),
                "document" | "proto" => self.resource(&value),
                "output" => {
                    self.word(&value, &[("raw", ()), ("content", ()), ("response", ())]);
                    self.template(&value)
                }
                "redirect" => {
                    self.flag(with, "redirect", false);
                    self.template(&value)
                }
                _ => self.template(&value),
            };
            pairs.push((key.to_owned(), template));
        }
        Template::Object(pairs)
    }

    /// A URI, or a URI with an authentication.
    pub(super) fn endpoint(&mut self, at: &At<'v>) -> Template {
        if at.value.as_text().is_some() {
            let uri = self.uri(at).unwrap_or(Template::Const(Value::Null));
            return Template::Object(vec![("uri".to_owned(), uri)]);
        }
        if !self.object(at, &["uri", "authentication"]) {
            return Template::Const(Value::Null);
        }
        let mut pairs = Vec::new();
        if let Some(uri) = self.required(at, "uri") {
            pairs.push(("uri".to_owned(), self.uri(&uri).unwrap_or(Template::Const(Value::Null))));
        }
        if let Some(authentication) = at.get("authentication") {
            pairs.push(("authentication".to_owned(), self.authentication(&authentication)));
        }
        Template::Object(pairs)
    }

    /// An authentication, or the name of one.
    pub(super) fn authentication(&mut self, at: &At<'v>) -> Template {
        let name = match at.value.as_text() {
            Some(name) => Some((name, at.at.clone())),
            None => at.get("use").and_then(|named| named.value.as_text().map(|name| (name, named.at))),
        };
        if let Some((name, place)) = name {
            return match self.named("authentications", name, &place) {
                Some(found) => self.scheme(&found),
                None => Template::Const(Value::Null),
            };
        }
        self.scheme(at)
    }

    pub(super) fn scheme(&mut self, at: &At<'v>) -> Template {
        self.object(at, &SCHEMES);
        if SCHEMES.iter().filter(|scheme| at.get(scheme).is_some()).count() != 1 {
            self.fault(&at.at, format!("an authentication is one of {}", SCHEMES.join(", ")));
        }
        self.template(at)
    }

    /// Something that is elsewhere; workers fetch it.
    fn resource(&mut self, at: &At<'v>) -> Template {
        if !self.object(at, &["name", "endpoint"]) {
            return Template::Const(Value::Null);
        }
        let mut pairs = Vec::new();
        if let Some(name) = at.get("name") {
            pairs.push(("name".to_owned(), self.template(&name)));
        }
        if let Some(endpoint) = self.required(at, "endpoint") {
            pairs.push(("endpoint".to_owned(), self.endpoint(&endpoint)));
        }
        Template::Object(pairs)
    }

    pub(super) fn run(&mut self, at: &At<'v>) -> Option<Kind> {
        if !self.object(at, &["container", "script", "shell", "workflow", "await", "return"]) {
            return None;
        }
        let processes = ["container", "script", "shell", "workflow"];
        let present: Vec<&str> = processes.into_iter().filter(|process| at.get(process).is_some()).collect();
        let [process] = present[..] else {
            self.fault(&at.at, format!("a process is one of {}", processes.join(", ")));
            return None;
        };
        let own = at.get(process)?;
        let waits = self.flag(at, "await", true);
        let words = [
            ("stdout", Return::Stdout),
            ("stderr", Return::Stderr),
            ("code", Return::Code),
            ("all", Return::All),
            ("none", Return::None),
        ];
        let returned = at.get("return").and_then(|returned| self.word(&returned, &words)).unwrap_or_default();
        let awaited = if waits { Await::Yes(returned) } else { Await::No };
        match process {
            "workflow" => self.workflow(&own, waits),
            "container" => {
                let known = [
                    "image",
                    "name",
                    "command",
                    "ports",
                    "volumes",
                    "environment",
                    "stdin",
                    "arguments",
                    "pullPolicy",
                    "lifetime",
                ];
                self.object(&own, &known);
                self.required(&own, "image");
                if let Some(lifetime) = own.get("lifetime") {
                    self.lifetime(&lifetime);
                }
                Some(Kind::Run { process: process.to_owned(), with: self.template(&own), awaited })
            }
            "script" => {
                self.object(&own, &["language", "code", "source", "stdin", "arguments", "environment"]);
                self.required(&own, "language");
                if own.get("code").is_some() == own.get("source").is_some() {
                    self.fault(&own.at, "a script has either `code` or `source`");
                }
                Some(Kind::Run { process: process.to_owned(), with: self.script(&own), awaited })
            }
            _ => {
                self.object(&own, &["command", "stdin", "arguments", "environment"]);
                self.required(&own, "command");
                Some(Kind::Run { process: process.to_owned(), with: self.template(&own), awaited })
            }
        }
    }

    /// A script; its code is no expression, whatever it looks like.
    fn script(&mut self, at: &At<'v>) -> Template {
        let mut pairs = Vec::new();
        for (key, value) in at.pairs().unwrap_or_default() {
            let template = match key {
                "code" => Template::Const(value.value.clone()),
                "source" => self.resource(&value),
                _ => self.template(&value),
            };
            pairs.push((key.to_owned(), template));
        }
        Template::Object(pairs)
    }

    fn lifetime(&mut self, at: &At<'v>) {
        if !self.object(at, &["cleanup", "after"]) {
            return;
        }
        let words = [("always", false), ("never", false), ("eventually", true)];
        let eventually = self.required(at, "cleanup").and_then(|cleanup| self.word(&cleanup, &words));
        if let Some(after) = at.get("after") {
            self.span(&after);
        } else if eventually == Some(true) {
            self.fault(&pointer(&at.at, "after"), "`after` is missing");
        }
    }

    fn workflow(&mut self, at: &At<'v>, awaited: bool) -> Option<Kind> {
        if !self.object(at, &["namespace", "name", "version", "input"]) {
            return None;
        }
        let namespace = self.required(at, "namespace").and_then(|at| self.text(&at));
        let name = self.required(at, "name").and_then(|at| self.text(&at));
        let version = self.optional_text(at, "version").filter(|version| *version != "latest");
        let input = at.get("input").map(|input| self.template(&input));
        Some(Kind::Workflow {
            namespace: namespace?.to_owned(),
            name: name?.to_owned(),
            version: version.map(str::to_owned),
            input,
            awaited,
        })
    }
}
