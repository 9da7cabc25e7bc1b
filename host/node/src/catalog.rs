//! The catalog: which nodes, groups and components the cluster has. It is group 0, a replicated state
//! machine like any other, in native code.
//!
//! Relies on `runtime` for its state. Promises that applying is deterministic, that group names are
//! unique among living groups and group ids are never used twice. It is a directory and never an
//! authority: members, limits and component of a group are decided in that group's own log. Knows no
//! connection.

use bytes::Bytes;
use quorate_crypto::{Possession, SecretKey, Signature, ValidatorSet};
use quorate_runtime::{Applied, Component, EntryContext, Event, Invocation, Space, State, StateView};
use quorate_types::{
    ClusterId, Digest, EpochConfig, GroupId, GroupKind, MemberKey, NodeId, Outcome, Rejection,
};
use serde::{Deserialize, Serialize};

/// The greatest name of a group or component, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The most groups of one cluster.
pub const GROUPS_MAX: u64 = 10_000;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its identity.
    pub node: NodeId,
    /// Where clients reach it, as `host:port`.
    pub api_address: String,
    /// Where other nodes reach it, as `host:port`.
    pub peer_address: String,
    /// The version it runs.
    pub version: String,
}

/// The key under which a node signs in the groups that sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The node.
    pub node: NodeId,
    /// Its key. Groups that exist already keep the key that they were made with.
    pub key: MemberKey,
    /// The key's signature over node and key.
    pub proof: Vec<u8>,
}

impl KeyRecord {
    /// The record of this node's key.
    #[must_use]
    pub fn of(cluster: ClusterId, node: NodeId, secret: &SecretKey) -> Self {
        let Possession { node, key, proof } = Possession::prove(cluster, node, secret);
        Self { node, key, proof: proof.0.to_vec() }
    }

    fn check(&self, cluster: ClusterId) -> Result<(), Rejection> {
        let fault = |why: &str| reject(108, "invalid-key", why);
        let proof = <[u8; Signature::BYTES]>::try_from(&self.proof[..]);
        let proof = Signature(proof.map_err(|_| fault("a proof has 64 bytes"))?);
        let possession = Possession { node: self.node, key: self.key, proof };
        possession.check(cluster).map(|_| ()).map_err(|error| fault(&error.to_string()))
    }
}

/// A group of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Its identity, never reused.
    pub group: GroupId,
    /// Its name, in kebab-case.
    pub name: String,
    /// Its first epoch.
    pub config: EpochConfig,
    /// The component that was last activated in it, as far as the directory was told.
    pub component: Option<Digest>,
}

/// A component that nodes hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// Of its bytes.
    pub digest: Digest,
    /// What it calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The layout version of its state.
    pub schema_version: u32,
    /// Layout versions that it migrates from.
    pub migrates_from: Vec<u32>,
    /// Commands that run only under a Byzantine protocol.
    pub critical: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// The JSON text in which it lists its commands, queries and events.
    pub schema: String,
    /// The node that received it first.
    pub source: NodeId,
}

impl ComponentRecord {
    /// The record of a component that `source` received.
    #[must_use]
    pub fn of(component: &Component, size: u64, source: NodeId) -> Self {
        let descriptor = component.descriptor();
        Self {
            digest: component.digest(),
            name: descriptor.name.clone(),
            version: descriptor.version.clone(),
            schema_version: descriptor.schema_version,
            migrates_from: descriptor.migrates_from.clone(),
            critical: descriptor.critical.clone(),
            size,
            schema: descriptor.schema.clone(),
            source,
        }
    }
}

/// What the catalog can be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatalogCommand {
    /// A node starts or changed an address.
    RegisterNode(NodeRecord),
    /// A node's key, from that node.
    RegisterKey(KeyRecord),
    /// Make a group.
    CreateGroup {
        /// Its name, in kebab-case, not taken.
        name: String,
        /// Its first epoch.
        config: EpochConfig,
    },
    /// A node holds a component's bytes.
    RegisterComponent(ComponentRecord),
    /// A group activated a component.
    NoteActivation {
        /// The group.
        group: GroupId,
        /// The component.
        component: Digest,
    },
}

/// The name every catalog command has on the wire; its body says which it is.
pub const COMMAND_NAME: &str = "catalog";
/// Event topic: a group was made; the key is its id in eight bytes, most significant first.
pub const TOPIC_GROUP: &str = "group-created";

impl CatalogCommand {
    /// The command's body.
    ///
    /// # Panics
    ///
    /// Never: every value of this type has a CBOR form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        to_cbor(self)
    }
}

/// Applies commands. Commands that are not catalog commands are refused.
pub fn apply(
    state: &mut State,
    cluster: ClusterId,
    context: &EntryContext,
    invocations: &[Invocation],
) -> Applied {
    let mut applied = Applied::default();
    for invocation in invocations {
        let outcome = match ciborium::from_reader::<CatalogCommand, _>(&invocation.body[..]) {
            Ok(command) if invocation.name == COMMAND_NAME => {
                apply_one(state, cluster, context, command, &mut applied.events)
            }
            Ok(_) | Err(_) => Err(reject(100, "malformed", "this is not a catalog command")),
        };
        applied.outcomes.push(match outcome {
            Ok(body) => Outcome::Done(body),
            Err(rejection) => Outcome::Rejected(rejection),
        });
    }
    applied
}

fn apply_one(
    state: &mut State,
    cluster: ClusterId,
    context: &EntryContext,
    command: CatalogCommand,
    events: &mut Vec<Event>,
) -> Result<Bytes, Rejection> {
    match command {
        CatalogCommand::RegisterNode(record) => {
            state.put(Space::User, key(b'n', &record.node.0.to_be_bytes()), to_cbor(&record));
            Ok(Bytes::new())
        }
        CatalogCommand::RegisterKey(record) => {
            register_key(state, cluster, &record)?;
            Ok(Bytes::new())
        }
        CatalogCommand::CreateGroup { name, config } => {
            let record = create_group(state, cluster, name, config)?;
            events.push(Event {
                topic: TOPIC_GROUP.to_owned(),
                key: Bytes::copy_from_slice(&record.group.0.to_be_bytes()),
                body: Bytes::copy_from_slice(&context.hlc.0.to_be_bytes()),
            });
            Ok(to_cbor(&record.group))
        }
        CatalogCommand::RegisterComponent(record) => {
            check_name(&record.name)?;
            let key = key(b'c', &record.digest.0);
            if state.get(Space::User, &key).is_none() {
                state.put(Space::User, key, to_cbor(&record));
            }
            Ok(Bytes::new())
        }
        CatalogCommand::NoteActivation { group, component } => {
            let key = key(b'g', &group.0.to_be_bytes());
            let known = state.get(Space::User, &key).and_then(|value| from_cbor::<GroupRecord>(value));
            let mut record = known.ok_or_else(|| reject(103, "unknown-group", "there is no such group"))?;
            record.component = Some(component);
            state.put(Space::User, key, to_cbor(&record));
            Ok(Bytes::new())
        }
    }
}

fn register_key(state: &mut State, cluster: ClusterId, record: &KeyRecord) -> Result<(), Rejection> {
    check_node(state, record.node)?;
    record.check(cluster)?;
    let others: Vec<KeyRecord> = records(&state.view(), b'k');
    if let Some(other) = others.iter().find(|other| other.key == record.key && other.node != record.node) {
        let why = format!("{} has that key; make a key for each node", other.node);
        return Err(reject(109, "duplicate-key", &why));
    }
    state.put(Space::User, key(b'k', &record.node.0.to_be_bytes()), to_cbor(record));
    Ok(())
}

fn check_node(state: &State, node: NodeId) -> Result<(), Rejection> {
    match state.get(Space::User, &key(b'n', &node.0.to_be_bytes())) {
        Some(_) => Ok(()),
        None => Err(reject(105, "unknown-node", &format!("the cluster has no node {node}"))),
    }
}

/// The members of a group that signs must have the keys that they registered.
fn check_keys(state: &State, cluster: ClusterId, config: &EpochConfig) -> Result<(), Rejection> {
    if !config.is_signed() {
        return Ok(());
    }
    // The group has no number yet; whether keys can be used does not depend on it.
    ValidatorSet::of_epoch(cluster, GroupId::CATALOG, config)
        .map_err(|fault| reject(108, "invalid-key", &fault.to_string()))?;
    for member in &config.members {
        let registered = state.get(Space::User, &key(b'k', &member.node.0.to_be_bytes()));
        let registered = registered.and_then(|value| from_cbor::<KeyRecord>(value)).map(|record| record.key);
        if registered != member.key {
            let why = format!("that is not the key that {} registered", member.node);
            return Err(reject(110, "unregistered-key", &why));
        }
    }
    Ok(())
}

fn create_group(
    state: &mut State,
    cluster: ClusterId,
    name: String,
    config: EpochConfig,
) -> Result<GroupRecord, Rejection> {
    check_name(&name)?;
    config.validate().map_err(|fault| reject(104, "invalid-configuration", &fault.to_string()))?;
    for member in &config.members {
        check_node(state, member.node)?;
    }
    check_keys(state, cluster, &config)?;
    let name_key = key(b'i', name.as_bytes());
    if let Some(taken) = state.get(Space::User, &name_key).and_then(|value| from_cbor::<GroupId>(value)) {
        let existing = state.get(Space::User, &key(b'g', &taken.0.to_be_bytes()));
        let existing = existing.and_then(|value| from_cbor::<GroupRecord>(value));
        if let Some(same) = existing.filter(|record| record.config == config) {
            return Ok(same);
        }
        return Err(reject(
            106,
            "name-taken",
            &format!("another group named {name} exists; choose another name"),
        ));
    }
    let last = state.get(Space::User, b"last-group").and_then(|value| from_cbor::<GroupId>(value));
    let group = last.unwrap_or(GroupId::CATALOG).next();
    if group.0 > GROUPS_MAX {
        return Err(reject(107, "too-many-groups", &format!("a cluster has at most {GROUPS_MAX} groups")));
    }
    let record = GroupRecord { group, name, config, component: None };
    state.put(Space::User, Bytes::from_static(b"last-group"), to_cbor(&group));
    state.put(Space::User, name_key, to_cbor(&group));
    state.put(Space::User, key(b'g', &group.0.to_be_bytes()), to_cbor(&record));
    Ok(record)
}

/// Whether a name is one to sixty-four letters, digits and dashes, starting with a letter.
fn check_name(name: &str) -> Result<(), Rejection> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if first && rest && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let rule =
        "a name starts with a lower-case letter and holds lower-case letters, digits and dashes, 64 at most";
    Err(reject(102, "invalid-name", rule))
}

/// The catalog has one query, `list`, and answers a [`Catalog`] in CBOR.
///
/// # Errors
///
/// A rejection for any other name.
pub fn query(view: &StateView, name: &str, _body: &Bytes) -> Result<Bytes, Rejection> {
    match name {
        "list" => Ok(to_cbor(&Catalog::read(view))),
        _ => Err(reject(101, "unknown-query", "the catalog answers the query list")),
    }
}

/// All that the catalog holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Catalog {
    /// In order of node.
    pub nodes: Vec<NodeRecord>,
    /// In order of group; without the catalog itself.
    pub groups: Vec<GroupRecord>,
    /// In order of digest.
    pub components: Vec<ComponentRecord>,
    /// In order of node.
    #[serde(default)]
    pub keys: Vec<KeyRecord>,
}

impl Catalog {
    /// Reads all of it from a view of the catalog's state.
    #[must_use]
    pub fn read(view: &StateView) -> Self {
        Self {
            nodes: records(view, b'n'),
            groups: records(view, b'g'),
            components: records(view, b'c'),
            keys: records(view, b'k'),
        }
    }

    /// The key that a node registered.
    #[must_use]
    pub fn key(&self, node: NodeId) -> Option<MemberKey> {
        self.keys.iter().find(|record| record.node == node).map(|record| record.key)
    }

    /// A group by name, or by number.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupRecord> {
        let number = name.parse().ok().map(GroupId);
        self.groups.iter().find(|record| record.name == name || Some(record.group) == number)
    }

    /// A component by digest, by the start of its digest, by `name@version`, or the newest of a name.
    #[must_use]
    pub fn component(&self, reference: &str) -> Option<&ComponentRecord> {
        if let Ok(digest) = reference.parse::<Digest>() {
            return self.components.iter().find(|record| record.digest == digest);
        }
        if let Some((name, version)) = reference.split_once('@') {
            return self.components.iter().find(|record| record.name == name && record.version == version);
        }
        let mut named = self.components.iter().filter(|record| record.name == reference);
        if let (Some(only), None) = (named.next(), named.next()) {
            return Some(only);
        }
        let mut begun = self
            .components
            .iter()
            .filter(|r| reference.len() >= 8 && r.digest.to_string().starts_with(reference));
        begun.next().filter(|_| begun.next().is_none())
    }
}

fn records<T: for<'de> Deserialize<'de>>(view: &StateView, prefix: u8) -> Vec<T> {
    view.range(Space::User, &[prefix, b'/'], Some(&[prefix, b'/' + 1]))
        .filter_map(|(_, value)| from_cbor(value))
        .collect()
}

fn key(prefix: u8, rest: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(2 + rest.len());
    key.extend_from_slice(&[prefix, b'/']);
    key.extend_from_slice(rest);
    Bytes::from(key)
}

fn reject(code: u32, name: &str, message: &str) -> Rejection {
    Rejection { code, name: name.to_owned(), message: message.to_owned() }
}

/// The CBOR form of one of the node's own values.
pub(crate) fn to_cbor<T: Serialize>(value: &T) -> Bytes {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out)
        .expect("the node's own records have a CBOR form and memory takes it");
    Bytes::from(out)
}

/// Reads a CBOR value, if it is one of this type.
pub(crate) fn from_cbor<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    ciborium::from_reader(bytes).ok()
}

/// The first epoch of a crash group on these nodes, each with one vote; the first of them leads first.
#[must_use]
pub fn crash_group(nodes: &[NodeId], limits: quorate_types::ComponentLimits) -> EpochConfig {
    use quorate_types::{Epoch, Incarnation, Member, Protocol, Role};
    let mut members: Vec<_> = nodes
        .iter()
        .map(|&node| Member { node, incarnation: Incarnation(1), role: Role::Voter, priority: 1, key: None })
        .collect();
    members.sort();
    EpochConfig {
        epoch: Epoch(1),
        kind: GroupKind::Crash,
        protocol: Protocol::Raft,
        members,
        first_leader: nodes.first().copied().unwrap_or_default(),
        limits,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_runtime::Origin;
    use quorate_types::{ComponentLimits, Epoch, HlcTimestamp, LogIndex};

    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn tell(state: &mut State, command: &CatalogCommand) -> Result<Bytes, Rejection> {
        let context = EntryContext {
            group: "catalog".into(),
            epoch: Epoch(1),
            index: LogIndex(1),
            hlc: HlcTimestamp(1),
            seed: (0, 0),
            schema_version: 0,
        };
        let invocation =
            Invocation { origin: Origin::System, name: COMMAND_NAME.to_owned(), body: command.encode() };
        match apply(state, CLUSTER, &context, &[invocation]).outcomes.remove(0) {
            Outcome::Done(body) => Ok(body),
            Outcome::Rejected(rejection) => Err(rejection),
        }
    }

    fn with_nodes(nodes: u64) -> State {
        let mut state = State::new();
        for node in 1..=nodes {
            let record = NodeRecord {
                node: NodeId(node),
                api_address: format!("127.0.0.1:{node}"),
                peer_address: format!("127.0.0.1:9{node}"),
                version: "0.1.0".into(),
            };
            tell(&mut state, &CatalogCommand::RegisterNode(record)).unwrap();
        }
        state
    }

    fn create(state: &mut State, name: &str, nodes: &[u64]) -> Result<GroupId, String> {
        let nodes: Vec<_> = nodes.iter().copied().map(NodeId).collect();
        let config = crash_group(&nodes, ComponentLimits::default());
        tell(state, &CatalogCommand::CreateGroup { name: name.into(), config })
            .map(|body| from_cbor(&body).unwrap())
            .map_err(|rejection| rejection.name)
    }

    #[test]
    fn groups_get_numbers_that_grow_and_names_that_are_unique() {
        let mut state = with_nodes(3);
        assert_eq!(create(&mut state, "ledger", &[1, 2, 3]), Ok(GroupId(1)));
        assert_eq!(create(&mut state, "kv", &[1]), Ok(GroupId(2)));
        assert_eq!(create(&mut state, "ledger", &[1, 2, 3]), Ok(GroupId(1)), "repeating changes nothing");
        assert_eq!(create(&mut state, "ledger", &[1]), Err("name-taken".into()));
        let catalog = Catalog::read(&state.view());
        assert_eq!(catalog.group("kv").unwrap().group, GroupId(2));
        assert_eq!(catalog.group("1").unwrap().name, "ledger");
        assert_eq!(catalog.nodes.len(), 3);
    }

    #[test]
    fn groups_that_cannot_run_are_refused_and_leave_nothing() {
        let mut state = with_nodes(1);
        assert_eq!(create(&mut state, "Ledger!", &[1]), Err("invalid-name".into()));
        assert_eq!(create(&mut state, "ledger", &[1, 9]), Err("unknown-node".into()));
        assert_eq!(create(&mut state, "ledger", &[]), Err("invalid-configuration".into()));
        assert!(Catalog::read(&state.view()).groups.is_empty());
    }

    fn secret(node: u64) -> SecretKey {
        SecretKey::from_seed(&[node as u8; 32])
    }

    fn register(state: &mut State, record: KeyRecord) -> Result<(), String> {
        tell(state, &CatalogCommand::RegisterKey(record)).map(|_| ()).map_err(|rejection| rejection.name)
    }

    /// What could go wrong: a node that signs as another, or with a key for which anyone can sign.
    #[test]
    fn keys_are_registered_with_proof_and_once() {
        let mut state = with_nodes(2);
        let good = KeyRecord::of(CLUSTER, NodeId(1), &secret(1));
        assert_eq!(register(&mut state, good.clone()), Ok(()));
        assert_eq!(register(&mut state, good.clone()), Ok(()), "repeating changes nothing");
        let stolen = KeyRecord { node: NodeId(2), ..good.clone() };
        assert_eq!(register(&mut state, stolen), Err("invalid-key".into()));
        let shared = KeyRecord::of(CLUSTER, NodeId(2), &secret(1));
        assert_eq!(register(&mut state, shared), Err("duplicate-key".into()));
        let elsewhere = KeyRecord::of(ClusterId([8; 16]), NodeId(2), &secret(2));
        assert_eq!(register(&mut state, elsewhere), Err("invalid-key".into()));
        let small = KeyRecord { key: MemberKey([0; 32]), ..good.clone() };
        assert_eq!(register(&mut state, small), Err("invalid-key".into()));
        let short = KeyRecord { proof: vec![1; 3], ..good };
        assert_eq!(register(&mut state, short), Err("invalid-key".into()));
        let stranger = KeyRecord::of(CLUSTER, NodeId(9), &secret(9));
        assert_eq!(register(&mut state, stranger), Err("unknown-node".into()));
        assert_eq!(Catalog::read(&state.view()).keys.len(), 1);
    }

    #[test]
    fn a_group_that_signs_needs_four_members_with_their_registered_keys() {
        let mut state = with_nodes(4);
        let config = |nodes: u64, key: fn(u64) -> u64| {
            let nodes: Vec<_> = (1..=nodes).map(NodeId).collect();
            let mut config = crash_group(&nodes, ComponentLimits::default());
            (config.kind, config.protocol) = (GroupKind::Byzantine, quorate_types::Protocol::HotStuff);
            for member in &mut config.members {
                member.key = Some(MemberKey(secret(key(member.node.0)).public().to_bytes()));
            }
            config
        };
        let create = |state: &mut State, config| {
            let command = CatalogCommand::CreateGroup { name: "g".into(), config };
            tell(state, &command).map(|_| ()).map_err(|rejection| (rejection.name, rejection.message))
        };
        let name = |result: Result<(), (String, String)>| result.map_err(|(name, _)| name);
        let few = create(&mut state, config(3, |node| node)).unwrap_err();
        assert!(few.0 == "invalid-configuration" && few.1.contains("use at least 4"), "{few:?}");
        for node in 1..=3 {
            register(&mut state, KeyRecord::of(CLUSTER, NodeId(node), &secret(node))).unwrap();
        }
        let missing = create(&mut state, config(4, |node| node));
        assert_eq!(name(missing), Err("unregistered-key".into()), "node 4 has registered none");
        register(&mut state, KeyRecord::of(CLUSTER, NodeId(4), &secret(4))).unwrap();
        let other = create(&mut state, config(4, |node| node + 10));
        assert_eq!(name(other), Err("unregistered-key".into()));
        let twice = create(&mut state, config(4, |node| node.min(3)));
        assert_eq!(name(twice), Err("invalid-key".into()));
        assert_eq!(create(&mut state, config(4, |node| node)), Ok(()));
    }

    #[test]
    fn components_are_found_by_name_version_and_digest() {
        let mut state = with_nodes(1);
        let record = |byte, version: &str| ComponentRecord {
            digest: Digest([byte; 32]),
            name: "ledger".into(),
            version: version.into(),
            schema_version: 1,
            migrates_from: Vec::new(),
            critical: Vec::new(),
            size: 10,
            schema: "{}".into(),
            source: NodeId(1),
        };
        tell(&mut state, &CatalogCommand::RegisterComponent(record(1, "1.0.0"))).unwrap();
        assert_eq!(Catalog::read(&state.view()).component("ledger").unwrap().version, "1.0.0");
        tell(&mut state, &CatalogCommand::RegisterComponent(record(2, "1.1.0"))).unwrap();
        let catalog = Catalog::read(&state.view());
        assert_eq!(catalog.component("ledger@1.1.0").unwrap().digest, Digest([2; 32]));
        assert_eq!(catalog.component("01010101").unwrap().version, "1.0.0");
        assert!(catalog.component("ledger").is_none(), "two versions: the name alone is not enough");
        assert!(catalog.component("0101").is_none(), "too short to be meant");
    }
}
