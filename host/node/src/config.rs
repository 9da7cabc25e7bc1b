//! The node's configuration: one struct, explicit defaults, checked once at start.
//!
//! Relies on figment to merge sources and to know where a value came from. Promises precedence flags >
//! environment > file > default, and an error that names the key for anything unknown or out of range.
//! Knows no running part of the node.
//!
//! Environment variables are `QUORATE_` followed by the key with `__` between its parts, such as
//! `QUORATE_LISTEN__API=127.0.0.1:7101`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use quorate_consensus::Timings;
use quorate_types::{ClusterId, NodeId};
use quorate_votes::gpu::Choice;
use serde::{Deserialize, Serialize};

/// All settings of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// This node.
    pub node: NodeSection,
    /// Where it listens.
    pub listen: ListenSection,
    /// The cluster it belongs to.
    pub cluster: ClusterSection,
    /// Its certificate and key, and the cluster's authority.
    pub tls: TlsSection,
    /// Timeouts of Raft groups.
    pub raft: RaftSection,
    /// The write-ahead log.
    pub log: LogSection,
    /// Threads.
    pub threads: ThreadSection,
    /// Where signatures of hybrid and Byzantine groups are verified.
    pub votes: VoteSection,
    /// Bounds towards clients.
    pub limits: LimitSection,
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSection {
    /// Its number, from 1, unique in the cluster. Required.
    pub id: u64,
    /// Its data directory; made if it does not exist. Relative to the working directory.
    pub data: PathBuf,
    /// The key with which it signs in hybrid and Byzantine groups, as `quorate pki node` makes it; readable by
    /// its owner only. A node without this file takes no part in such groups.
    pub consensus_key: PathBuf,
}

/// Where the node listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSection {
    /// For clients: gRPC with mutual TLS.
    pub api: SocketAddr,
    /// For other nodes.
    pub peer: SocketAddr,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSection {
    /// Thirty-two hexadecimal digits, as `quorate pki init` printed them. Required.
    pub id: String,
    /// The initial nodes, the same list on every node. Required.
    pub nodes: Vec<ClusterNode>,
}

/// One of the cluster's initial nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterNode {
    /// Its number.
    pub id: u64,
    /// Where other nodes reach it, as `host:port`.
    pub peer: String,
    /// Where clients reach it, as `host:port`.
    pub api: String,
}

/// Certificates, in PEM files. Relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// The certificate of the cluster's authority.
    pub ca: PathBuf,
    /// This node's certificate.
    pub cert: PathBuf,
    /// This node's key; readable by its owner only.
    pub key: PathBuf,
}

/// Timeouts of Raft groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftSection {
    /// Between two signs of life of a leader, in milliseconds. 5 to 10,000.
    pub heartbeat_ms: u64,
    /// The least silence after which a follower campaigns, in milliseconds; the actual one is drawn
    /// between this and twice this. At least three heartbeats.
    pub election_timeout_ms: u64,
    /// How far the stamp of an entry may lie ahead of this node's clock, in milliseconds.
    pub clock_skew_max_ms: u64,
}

/// The write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Bytes of one preallocated segment. 16 MiB to 1 GiB.
    pub segment_bytes: u64,
}

/// Threads; 0 chooses by the number of processors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThreadSection {
    /// Threads that serve connections. With 1, they carry the shards too.
    pub runtime: usize,
    /// Shards that run groups. 1 to 64.
    pub shards: usize,
    /// Threads that verify signatures of hybrid and Byzantine groups. 1 to 64.
    pub votes: usize,
    /// Whether the system schedules all of them as batch work (Linux's `SCHED_BATCH`): a thread that wakes does not
    /// interrupt what runs on its core. More commands per second where there are more busy processes than cores;
    /// `false` for a node that shares its cores with programs that compute without a pause.
    pub batch: bool,
}

/// Where signatures of hybrid and Byzantine groups are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VoteSection {
    /// Graphics cards that verify beside the processor: `"auto"` for all that there are, `"off"` for none, or their
    /// numbers from 0, such as `[0, 2]`; without a card that is named the node does not start.
    pub cards: Cards,
}

/// A choice of cards, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenCards", into = "WrittenCards")]
pub struct Cards(pub Choice);

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "choose \"auto\", \"off\", or numbers of cards from 0, such as [0, 2]")]
enum WrittenCards {
    Word(String),
    One(usize),
    Some(Vec<usize>),
}

impl TryFrom<WrittenCards> for Cards {
    type Error = String;

    fn try_from(written: WrittenCards) -> Result<Self, String> {
        match written {
            WrittenCards::Word(word) if word == "auto" => Ok(Self(Choice::All)),
            WrittenCards::Word(word) if word == "off" => Ok(Self(Choice::Off)),
            WrittenCards::Word(word) => {
                Err(format!("{word:?} names no cards: choose \"auto\", \"off\", or numbers such as [0, 2]"))
            }
            WrittenCards::One(card) => Ok(Self(Choice::These(vec![card]))),
            WrittenCards::Some(cards) => Ok(Self(Choice::These(cards))),
        }
    }
}

impl From<Cards> for WrittenCards {
    fn from(cards: Cards) -> Self {
        match cards.0 {
            Choice::All => Self::Word("auto".to_owned()),
            Choice::Off => Self::Word("off".to_owned()),
            Choice::These(cards) => Self::Some(cards),
        }
    }
}

/// Bounds towards clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSection {
    /// The greatest message from a client, in bytes. 64 KiB to 64 MiB.
    pub request_bytes: usize,
    /// The most connections from clients. 1 to 100,000.
    pub connections: usize,
    /// Inputs that wait for one shard; more are refused as overloaded. 1,024 to 10,000,000.
    pub mailbox: usize,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            node: NodeSection {
                id: 0,
                data: PathBuf::from("data"),
                consensus_key: "pki/node-consensus.key".into(),
            },
            listen: ListenSection {
                api: SocketAddr::from(([127, 0, 0, 1], 7101)),
                peer: SocketAddr::from(([127, 0, 0, 1], 7201)),
            },
            cluster: ClusterSection { id: String::new(), nodes: Vec::new() },
            tls: TlsSection {
                ca: "pki/ca.pem".into(),
                cert: "pki/node.pem".into(),
                key: "pki/node.key".into(),
            },
            raft: RaftSection { heartbeat_ms: 40, election_timeout_ms: 150, clock_skew_max_ms: 10_000 },
            log: LogSection { segment_bytes: 64 << 20 },
            threads: ThreadSection { runtime: 0, shards: 0, votes: 0, batch: true },
            votes: VoteSection { cards: Cards(Choice::All) },
            limits: LimitSection { request_bytes: 16 << 20, connections: 4_096, mailbox: 262_144 },
        }
    }
}

macro_rules! default_from_node_config {
    ($($section:ident: $name:ident),*) => {
        $(impl Default for $section {
            fn default() -> Self {
                NodeConfig::default().$name
            }
        })*
    };
}

default_from_node_config!(
    NodeSection: node, ListenSection: listen, ClusterSection: cluster, TlsSection: tls, RaftSection: raft,
    LogSection: log, ThreadSection: threads, VoteSection: votes, LimitSection: limits
);

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A source cannot be read, or has an unknown key or a value of the wrong type.
    #[error("the configuration cannot be read: {0}")]
    Source(String),
    /// A value is out of its range.
    #[error("{key} = {value}: {rule}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        rule: String,
    },
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The key, with its section.
    pub key: String,
    /// The value, as JSON.
    pub value: String,
    /// Flag, environment, file or default.
    pub source: String,
}

impl NodeConfig {
    /// Merges the sources and checks the result. `flags` holds what the command line set, as a nested
    /// value with the keys of this struct.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first fault found.
    pub fn load(file: Option<&Path>, flags: serde_json::Value) -> Result<Self, ConfigError> {
        let config: Self =
            Self::sources(file, flags)?.extract().map_err(|error| ConfigError::Source(error.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Every value with its source, in order of key.
    ///
    /// # Errors
    ///
    /// As [`NodeConfig::load`], except that ranges are not checked.
    pub fn explain(file: Option<&Path>, flags: serde_json::Value) -> Result<Vec<Explained>, ConfigError> {
        let sources = Self::sources(file, flags)?;
        let config: Self = sources.extract().map_err(|error| ConfigError::Source(error.to_string()))?;
        let value = serde_json::to_value(&config).map_err(|error| ConfigError::Source(error.to_string()))?;
        let mut explained = Vec::new();
        for (section, keys) in value.as_object().into_iter().flatten() {
            for (name, value) in keys.as_object().into_iter().flatten() {
                let key = format!("{section}.{name}");
                let source =
                    sources.find_metadata(&key).map_or("default".to_owned(), |from| from.name.to_string());
                explained.push(Explained { key, value: value.to_string(), source });
            }
        }
        Ok(explained)
    }

    fn sources(file: Option<&Path>, flags: serde_json::Value) -> Result<Figment, ConfigError> {
        let mut sources = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            if !file.is_file() {
                let missing = format!("there is no file {}; name one with --config", file.display());
                return Err(ConfigError::Source(missing));
            }
            sources = sources.merge(Toml::file_exact(file));
        }
        // The command line has a variable of its own, which names a client's context and no key.
        let environment = Env::prefixed("QUORATE_").ignore(&["context"]).split("__");
        Ok(sources.merge(environment).merge(Serialized::globals(flags)))
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] for the first that is outside.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fault =
            |key, value: String, rule: &str| Err(ConfigError::Value { key, value, rule: rule.to_owned() });
        if self.node.id == 0 {
            return fault("node.id", "0".to_owned(), "give this node's number, from 1");
        }
        self.cluster_id()?;
        let mut ids: Vec<_> = self.cluster.nodes.iter().map(|node| node.id).collect();
        ids.sort_unstable();
        if ids.is_empty() || ids.contains(&0) || ids.windows(2).any(|pair| pair[0] == pair[1]) {
            let rule = "list the cluster's initial nodes, each once, numbered from 1";
            return fault("cluster.nodes", format!("{ids:?}"), rule);
        }
        if !ids.contains(&self.node.id) {
            let rule = "this node must be one of cluster.nodes";
            return fault("node.id", self.node.id.to_string(), rule);
        }
        if let Err(error) = self.timings().validate() {
            return fault("raft", format!("{:?}", self.raft), &error.to_string());
        }
        if let Choice::These(cards) = &self.votes.cards.0 {
            let mut distinct = cards.clone();
            distinct.sort_unstable();
            distinct.dedup();
            if cards.is_empty() || distinct.len() < cards.len() {
                let rule = "name each card once; \"off\" uses none";
                return fault("votes.cards", format!("{cards:?}"), rule);
            }
        }
        let ranges = [
            ("raft.clock_skew_max_ms", self.raft.clock_skew_max_ms, 10, 3_600_000),
            ("log.segment_bytes", self.log.segment_bytes, 16 << 20, 1 << 30),
            ("threads.runtime", self.threads.runtime as u64, 0, 1_024),
            ("threads.shards", self.threads.shards as u64, 0, 64),
            ("threads.votes", self.threads.votes as u64, 0, 64),
            ("limits.request_bytes", self.limits.request_bytes as u64, 64 << 10, 64 << 20),
            ("limits.connections", self.limits.connections as u64, 1, 100_000),
            ("limits.mailbox", self.limits.mailbox as u64, 1_024, 10_000_000),
        ];
        for (key, value, least, greatest) in ranges {
            if !(least..=greatest).contains(&value) {
                return fault(key, value.to_string(), &format!("choose {least} to {greatest}"));
            }
        }
        Ok(())
    }

    /// The cluster's identity.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Value`] unless it is thirty-two hexadecimal digits.
    pub fn cluster_id(&self) -> Result<ClusterId, ConfigError> {
        let text = &self.cluster.id;
        let byte = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Option<Vec<u8>> = (0..32).step_by(2).map(byte).collect();
        match bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
            Some(id) if text.len() == 32 => Ok(ClusterId(id)),
            _ => Err(ConfigError::Value {
                key: "cluster.id",
                value: format!("{text:?}"),
                rule: "give thirty-two hexadecimal digits, as `quorate pki init` printed them".to_owned(),
            }),
        }
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node.id)
    }

    /// The digest that nodes compare before they speak: equal lists, equal digest.
    ///
    /// # Errors
    ///
    /// As [`NodeConfig::cluster_id`].
    pub fn genesis(&self) -> Result<quorate_types::Digest, ConfigError> {
        let mut out = quorate_types::codec::Writer::default();
        out.raw(&self.cluster_id()?.0);
        let mut nodes = self.cluster.nodes.clone();
        nodes.sort();
        for node in nodes {
            out.u64(node.id);
            out.bytes(node.peer.as_bytes());
        }
        Ok(quorate_crypto::digest("quorate 2026 genesis", &out.finish()))
    }

    /// How many threads serve connections.
    #[must_use]
    pub fn runtime_threads(&self) -> usize {
        match self.threads.runtime {
            0 => processors().div_ceil(2),
            given => given,
        }
    }

    /// How many shards run groups.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        match self.threads.shards {
            0 => processors().div_ceil(4),
            given => given,
        }
    }

    /// How many threads verify signatures.
    #[must_use]
    pub fn vote_threads(&self) -> usize {
        match self.threads.votes {
            0 => processors().div_ceil(2).min(quorate_votes::THREADS_MAX),
            given => given,
        }
    }

    /// Timeouts of Raft groups.
    #[must_use]
    pub fn timings(&self) -> Timings {
        Timings {
            heartbeat: Duration::from_millis(self.raft.heartbeat_ms),
            election_timeout: Duration::from_millis(self.raft.election_timeout_ms),
            clock_skew_max: Duration::from_millis(self.raft.clock_skew_max_ms),
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = r#"
        [node]
        id = 2
        [cluster]
        id = "000102030405060708090a0b0c0d0e0f"
        nodes = [
            { id = 1, peer = "127.0.0.1:7201", api = "127.0.0.1:7101" },
            { id = 2, peer = "127.0.0.1:7202", api = "127.0.0.1:7102" },
        ]
    "#;

    fn load(text: &str, flags: serde_json::Value) -> Result<NodeConfig, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.toml");
        std::fs::write(&file, text).unwrap();
        NodeConfig::load(Some(&file), flags)
    }

    #[test]
    fn a_file_is_read_and_flags_override_it() {
        assert_eq!(load(GOOD, serde_json::json!({})).unwrap().node.id, 2);
        assert_eq!(load(GOOD, serde_json::json!({"node": {"id": 1}})).unwrap().node.id, 1);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = load(&format!("{GOOD}\n[raft]\nheartbeat = 5\n"), serde_json::json!({})).unwrap_err();
        assert!(error.to_string().contains("heartbeat"), "{error}");
        let error = load(&format!("{GOOD}\n[rafts]\n"), serde_json::json!({})).unwrap_err();
        assert!(error.to_string().contains("rafts"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        let refused = |flags: serde_json::Value, part: &str| {
            let error = load(GOOD, flags).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(serde_json::json!({"node": {"id": 0}}), "from 1");
        refused(serde_json::json!({"node": {"id": 9}}), "one of cluster.nodes");
        refused(serde_json::json!({"cluster": {"id": "xyz"}}), "pki init");
        refused(serde_json::json!({"raft": {"heartbeat_ms": 1}}), "5 ms");
        refused(serde_json::json!({"log": {"segment_bytes": 1}}), "choose");
    }

    #[test]
    fn cards_are_chosen_by_a_word_or_by_number_and_by_nothing_else() {
        let cards = |text: &str| {
            let loaded = load(&format!("{GOOD}\n[votes]\ncards = {text}\n"), serde_json::json!({}));
            loaded.map(|config| config.votes.cards.0).map_err(|error| error.to_string())
        };
        assert_eq!(load(GOOD, serde_json::json!({})).unwrap().votes.cards.0, Choice::All);
        assert_eq!(cards("\"auto\""), Ok(Choice::All));
        assert_eq!(cards("\"off\""), Ok(Choice::Off));
        assert_eq!(cards("[0, 2]"), Ok(Choice::These(vec![0, 2])));
        assert_eq!(cards("1"), Ok(Choice::These(vec![1])));
        for (text, part) in [
            ("\"some\"", "names no cards"),
            ("[]", "\"off\" uses none"),
            ("[1, 1]", "each card once"),
            ("[-1]", "numbers of cards"),
            ("true", "numbers of cards"),
        ] {
            let error = cards(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let explained =
            NodeConfig::load(None, serde_json::to_value(load(GOOD, serde_json::json!({})).unwrap()).unwrap());
        assert_eq!(explained.unwrap().votes.cards.0, Choice::All, "what is shown can be read");
    }

    #[test]
    fn every_value_says_where_it_came_from() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.toml");
        std::fs::write(&file, GOOD).unwrap();
        let explained = NodeConfig::explain(Some(&file), serde_json::json!({})).unwrap();
        let source = |key: &str| explained.iter().find(|value| value.key == key).unwrap().source.clone();
        assert!(source("node.id").contains("TOML"), "{}", source("node.id"));
        assert!(!source("raft.heartbeat_ms").contains("TOML"));
    }

    #[test]
    fn another_list_of_nodes_is_another_genesis() {
        let one = load(GOOD, serde_json::json!({})).unwrap();
        let mut other = one.clone();
        other.cluster.nodes[0].peer = "127.0.0.1:9".to_owned();
        assert_ne!(one.genesis(), other.genesis());
        let mut reordered = one.clone();
        reordered.cluster.nodes.reverse();
        assert_eq!(one.genesis(), reordered.genesis());
    }
}
