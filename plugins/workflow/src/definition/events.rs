//! Tasks and schedules that have to do with events.
//!
//! Relies on the reader. Promises CloudEvents' attributes and the specification's strategies. Knows no case.

use super::program::{Correlation, EventFilter, Events, ForEach, Kind, Read, Template, Until};
use super::reader::{At, Reader};

impl<'v> Reader<'v> {
    pub(super) fn emit(&mut self, at: &At<'v>) -> Option<Kind> {
        if !self.object(at, &["event"]) {
            return None;
        }
        let event = self.required(at, "event")?;
        if !self.object(&event, &["with"]) {
            return None;
        }
        let with = self.required(&event, "with")?;
        if with.value.pairs().is_none() {
            self.fault(&with.at, "an event is an object of its attributes");
            return None;
        }
        self.required(&with, "source");
        self.required(&with, "type");
        Some(Kind::Emit(self.template(&with)))
    }

    pub(super) fn listen(&mut self, task: &At<'v>, at: &At<'v>) -> Option<Kind> {
        if !self.object(at, &["to", "read"]) {
            return None;
        }
        let words = [("data", Read::Data), ("envelope", Read::Envelope), ("raw", Read::Raw)];
        let read = at.get("read").and_then(|read| self.word(&read, &words)).unwrap_or_default();
        let to = self.required(at, "to").and_then(|to| self.events(&to));
        let each = task.get("foreach").and_then(|each| self.for_each_event(&each));
        Some(Kind::Listen { to: to?, read, each: each.map(Box::new) })
    }

    fn for_each_event(&mut self, at: &At<'v>) -> Option<ForEach> {
        if !self.object(at, &["item", "at", "do", "output", "export"]) {
            return None;
        }
        let item = self.variable(at, "item", "item");
        let index = self.variable(at, "at", "index");
        let outside = self.variables.len();
        self.variables.extend([item.clone(), index.clone()]);
        let output = self.optional_shape(at, "output", "as");
        let export = self.optional_shape(at, "export", "as");
        self.variables.truncate(outside);
        let block = at.get("do").map(|block| self.block_with(&block, &[&item, &index])).unwrap_or_default();
        Some(ForEach { item, at: index, block, output, export })
    }

    /// A strategy: `one`, `all` or `any`.
    pub(super) fn events(&mut self, at: &At<'v>) -> Option<Events> {
        if !self.object(at, &["one", "all", "any", "until"]) {
            return None;
        }
        let present: Vec<&str> =
            ["one", "all", "any"].into_iter().filter(|key| at.get(key).is_some()).collect();
        let [kind] = present[..] else {
            self.fault(&at.at, "one of `one`, `all` and `any` says which events are meant");
            return None;
        };
        let own = at.get(kind)?;
        if kind == "one" {
            return self.filter(&own).map(Events::One);
        }
        let Some(items) = own.items() else {
            self.fault(&own.at, "a list of event filters stands here");
            return None;
        };
        let filters: Vec<EventFilter> = items.iter().filter_map(|item| self.filter(item)).collect();
        if kind == "all" {
            if filters.is_empty() {
                self.fault(&own.at, "at least one event is needed");
            }
            return Some(Events::All(filters));
        }
        let until = at.get("until");
        if filters.is_empty() && items.is_empty() && until.is_none() {
            self.fault(&own.at, "without events to choose from, `until` must say when to stop");
        }
        Some(Events::Any(filters, until.and_then(|until| self.until(&until))))
    }

    fn until(&mut self, at: &At<'v>) -> Option<Until> {
        if at.value.pairs().is_none() {
            return self.expression(at).map(Until::Condition);
        }
        if let Some(nested) = at.get("until") {
            self.fault(&nested.at, "`until` cannot have an `until` of its own");
        }
        self.events(at).map(|events| Until::Events(Box::new(events)))
    }

    fn filter(&mut self, at: &At<'v>) -> Option<EventFilter> {
        if !self.object(at, &["with", "correlate"]) {
            return None;
        }
        let with = self.required(at, "with")?;
        let Some(attributes) = with.pairs().filter(|pairs| !pairs.is_empty()) else {
            self.fault(&with.at, "a filter names at least one attribute");
            return None;
        };
        let with: Vec<(String, Template)> =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), self.template(value))).collect();
        let mut correlate = Vec::new();
        if let Some(links) = at.get("correlate") {
            let Some(pairs) = links.pairs() else {
                self.fault(&links.at, "correlations are an object of their names");
                return None;
            };
            for (name, link) in pairs {
                if !self.object(&link, &["from", "expect"]) {
                    continue;
                }
                let from = self.required(&link, "from").and_then(|from| self.expression(&from));
                let expect = link.get("expect").map(|expect| self.template(&expect));
                correlate.extend(from.map(|from| Correlation { name: name.to_owned(), from, expect }));
            }
        }
        Some(EventFilter { with, correlate })
    }
}
