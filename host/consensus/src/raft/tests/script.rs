//! Runs a script: blocks of commands, `----`, and what they must print.
//!
//! Relies on the simulated cluster. Promises that a script names every step it takes. Commands:
//!
//! ```text
//! cluster n1 n2 n3=5 n4=learner   a new cluster; =5 is a priority; the first voter is designated
//! tick n1                         go to that replica's deadline and tick it
//! run 200                         let that many ms pass with everything carried out at once
//! pass 50                         let that many ms pass and do nothing
//! flush n1                        complete its oldest flush          flush n1 all
//! deliver                         hand over what is in the network   deliver n1->n2
//! drop                            lose what is in the network        drop n1->n2
//! settle                          flush and hand over until nothing is under way
//! cut n1 / cut n1->n2 / heal      links
//! propose n1 x / read n1 7 / transfer n1 n2 / may-lead n1 false
//! crash n1 / start n1             a crash loses what was not flushed
//! compact n1 5 4                  snapshot at 5, keep the log from 4 on
//! install n1 / fail n1            the fetch it asked for ends
//! wall n1 2000                    its wall clock is that many ms ahead
//! log n1 / status                 show
//! ```
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::time::Duration;

use quorate_types::{LogIndex, NodeId, Position, Role};

use super::cluster::{Cluster, Packet, config, member, show};
use crate::{Effects, Input, ReadId};

/// Runs a script and compares, or writes it anew if asked to by the environment.
#[allow(clippy::disallowed_methods)]
pub(super) fn check(name: &str, script: &str) {
    let actual = run(script);
    if std::env::var("QUORATE_REWRITE_SCRIPTS").is_ok() {
        let path = format!("src/raft/scripts/{name}");
        std::fs::write(path, &actual).unwrap();
        return;
    }
    for (line, (expected, actual)) in script.lines().zip(actual.lines()).enumerate() {
        assert_eq!(expected, actual, "{name}, line {}", line + 1);
    }
    assert_eq!(script.lines().count(), actual.lines().count(), "{name} has as many lines as it prints");
}

/// The script with the output that its commands gave.
fn run(script: &str) -> String {
    let mut runner = Runner { cluster: None, serial: 0, out: String::new() };
    let mut result = String::new();
    for block in script.trim_end().split("\n\n") {
        let commands = block.split("----").next().unwrap().trim_end();
        let said = commands.lines().filter(|line| !line.starts_with('#'));
        let has_commands = said.clone().next().is_some();
        said.for_each(|line| runner.command(line));
        result.push_str(commands);
        result.push('\n');
        if has_commands {
            result.push_str("----\n");
            result.push_str(&std::mem::take(&mut runner.out));
        }
        result.push('\n');
    }
    result.truncate(result.trim_end().len());
    result.push('\n');
    result
}

struct Runner {
    cluster: Option<Cluster>,
    serial: u64,
    out: String,
}

fn node(word: &str) -> NodeId {
    NodeId(word.trim_start_matches('n').parse().unwrap())
}

fn link(word: &str) -> (NodeId, NodeId) {
    let (from, to) = word.split_once("->").unwrap();
    (node(from), node(to))
}

fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

fn at(position: Position) -> String {
    format!("{}/{}", position.term.0, position.index.0)
}

impl Runner {
    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["cluster", members @ ..] = &words[..] {
            self.cluster =
                Some(Cluster::new(config(members.iter().map(|word| parse_member(word)).collect()), 7));
            return;
        }
        match &words[..] {
            ["tick", id] => self.tick(node(id)),
            ["run", ms] => self.cluster().run(Duration::from_millis(number(ms))),
            ["pass", ms] => {
                let cluster = self.cluster();
                cluster.now = cluster.now.after(Duration::from_millis(number(ms)));
            }
            ["flush", id] => self.flush(node(id)),
            ["flush", id, "all"] => {
                while !self.cluster().node(node(id)).unflushed.is_empty() {
                    self.flush(node(id));
                }
            }
            ["deliver"] => self.deliver(|_| true),
            ["deliver", over] => self.deliver(|packet| (packet.from, packet.to) == link(over)),
            ["drop"] => self.cluster().network.clear(),
            ["drop", over] => {
                self.cluster().network.retain(|packet| (packet.from, packet.to) != link(over));
            }
            ["settle"] => self.cluster().settle(),
            ["cut", over] => self.cut(over),
            ["heal"] => self.cluster().cut.clear(),
            ["propose", id, body] => {
                self.serial += 1;
                let serial = self.serial;
                let effects = self.cluster().propose(node(id), serial, body);
                self.show(&format!("{id} proposes"), effects);
            }
            ["read", id, read] => self.step(node(id), "reads", Input::Read(ReadId(number(read)))),
            ["transfer", id, to] => self.step(node(id), "transfers", Input::TransferLeader(node(to))),
            ["may-lead", id, may] => self.step(node(id), "may lead", Input::MayLead(*may == "true")),
            ["crash", id] => self.cluster().crash(node(id)),
            ["start", id] => self.cluster().start(node(id)),
            ["compact", id, index, keep] => {
                let (index, keep) = (LogIndex(number(index)), LogIndex(number(keep)));
                let effects = self.cluster().compact(node(id), index, keep);
                self.show(&format!("{id} compacts"), effects);
            }
            ["install", id] => match self.cluster().install(node(id)) {
                Some(effects) => self.show(&format!("{id} installs"), effects),
                None => writeln!(self.out, "{id} fetches nothing").unwrap(),
            },
            ["fail", id] => {
                let fetch = self.cluster().nodes.get_mut(&node(id)).unwrap().fetch.take().unwrap();
                self.step(node(id), "fails to fetch", Input::SnapshotFailed(fetch.position));
            }
            ["wall", id, ms] => {
                self.cluster().nodes.get_mut(&node(id)).unwrap().wall_ahead_ms = ms.parse().unwrap();
            }
            ["log", id] => self.show_log(node(id)),
            ["status"] => self.show_status(),
            other => panic!("unknown command {other:?}"),
        }
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("the script begins with a cluster")
    }

    fn step(&mut self, id: NodeId, what: &str, input: Input) {
        let effects = self.cluster().step(id, input);
        self.show(&format!("{id} {what}"), effects);
    }

    fn tick(&mut self, id: NodeId) {
        let cluster = self.cluster();
        let due = cluster.raft(id).next_deadline().unwrap();
        cluster.now = cluster.now.max(due);
        self.step(id, "ticks", Input::Tick);
    }

    fn flush(&mut self, id: NodeId) {
        match self.cluster().flush_one(id) {
            Some((token, effects)) => self.show(&format!("{id} flushed @{}", token.0), effects),
            None => writeln!(self.out, "{id} has nothing to flush").unwrap(),
        }
    }

    fn deliver(&mut self, picks: impl Fn(&Packet) -> bool) {
        let all = std::mem::take(&mut self.cluster().network);
        let (picked, left): (Vec<_>, Vec<_>) = all.into_iter().partition(picks);
        self.cluster().network.extend(left);
        for packet in picked {
            let title = format!("{} -> {}: {}", packet.from, packet.to, show(&packet.message));
            match self.cluster().hand_over(packet) {
                Some(effects) => self.show(&title, effects),
                None => writeln!(self.out, "{title} (lost)").unwrap(),
            }
        }
    }

    fn cut(&mut self, over: &str) {
        let cluster = self.cluster();
        if over.contains("->") {
            cluster.cut.insert(link(over));
            return;
        }
        for other in cluster.ids() {
            cluster.cut.insert((node(over), other));
            cluster.cut.insert((other, node(over)));
        }
    }

    fn show(&mut self, title: &str, effects: Effects) {
        let mut lines = vec![title.to_owned()];
        if let Some(persist) = &effects.persist {
            let mut line = format!("  persist @{}", persist.token.0);
            if let Some(reset) = persist.reset {
                write!(line, " reset after {}", at(reset)).unwrap();
            }
            if let Some(hard_state) = &persist.hard_state {
                let (term, vote) = parse_hard_state(hard_state);
                write!(line, " t{term} vote {vote}").unwrap();
            }
            if !persist.entries.is_empty() {
                let entries: Vec<_> = persist.entries.iter().map(|entry| at(entry.position)).collect();
                write!(line, " [{}]", entries.join(" ")).unwrap();
            }
            lines.push(line);
        }
        for outgoing in &effects.messages {
            let after = outgoing.token().map_or(String::new(), |token| format!(" after @{}", token.0));
            lines.push(format!("  to {}{after}: {}", outgoing.to(), show(outgoing.message())));
        }
        if !effects.deliver.is_empty() {
            let entries: Vec<_> = effects.deliver.iter().map(|one| at(one.entry.position)).collect();
            lines.push(format!("  deliver [{}]", entries.join(" ")));
        }
        for (id, result) in &effects.proposed {
            lines.push(match result {
                Ok(position) => format!("  proposal {} at {}", id.0, at(*position)),
                Err(error) => format!("  proposal {} refused: {error}", id.0),
            });
        }
        for (id, result) in &effects.reads {
            lines.push(match result {
                Ok(index) => format!("  read {} at {}", id.0, index.0),
                Err(error) => format!("  read {} refused: {error}", id.0),
            });
        }
        if let Some(fetch) = &effects.fetch {
            lines.push(format!("  fetch {} from {}", at(fetch.position), fetch.from));
        }
        if let Some(status) = &effects.status {
            lines.push(format!("  {}", show_status(status)));
        }
        if let Some(fence) = &effects.fence {
            lines.push(format!("  FENCE: {}", fence.reason));
        }
        self.out.extend(lines.into_iter().flat_map(|line| [line, "\n".to_owned()]));
    }

    fn show_log(&mut self, id: NodeId) {
        let log = &self.cluster().raft(id).log;
        let entries: Vec<_> =
            log.range(LogIndex(0), log.last().index).map(|entry| at(entry.position)).collect();
        let line = format!("{id} base {} [{}]\n", at(log.base()), entries.join(" "));
        self.out.push_str(&line);
    }

    fn show_status(&mut self) {
        let cluster = self.cluster();
        let line = |id: NodeId| match (&cluster.node(id).raft, &cluster.node(id).status) {
            (Some(raft), Some(status)) => {
                format!("{id} {}, last {}\n", show_status(status), at(raft.log.last()))
            }
            (Some(_), None) => format!("{id} was just started\n"),
            (None, _) => format!("{id} is down\n"),
        };
        let lines: String = cluster.ids().into_iter().map(line).collect();
        self.out.push_str(&lines);
    }
}

fn show_status(status: &crate::Status) -> String {
    let role = format!("{:?}", status.role).to_lowercase();
    let leader = status.leader.map_or("nobody".to_owned(), |leader| leader.to_string());
    format!("{role} t{}, leader {leader}, commit {}", status.term.0, status.commit.0)
}

fn parse_member(word: &str) -> quorate_types::Member {
    let (id, what) = word.split_once('=').unwrap_or((word, "1"));
    match what {
        "learner" => member(node(id).0, Role::Learner, 1),
        priority => member(node(id).0, Role::Voter, priority.parse().unwrap()),
    }
}

fn parse_hard_state(bytes: &bytes::Bytes) -> (u64, String) {
    let state = super::super::state::HardState::decode(bytes.clone(), quorate_types::Epoch(1)).unwrap();
    (state.term.0, state.vote.map_or("nobody".to_owned(), |node| node.to_string()))
}
