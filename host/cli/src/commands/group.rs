//! `quorate group`, `transfer-leader` and `snapshot`.
//!
//! Relies on the client library. Promises that creating a group again with the same settings changes
//! nothing. Knows no component.

use anyhow::Result;
use quorate_client::proto::{
    self, CreateGroupRequest, DescribeGroupReply, GroupInfo, GroupKind, MemberRole, MemberState, ReplicaInfo,
    ReplicaRole,
};
use serde_json::{Value, json};

use crate::arguments::{GroupCommand, Kind, Protocol, SnapshotArguments, TransferArguments};
use crate::connection;
use crate::exit::Fault;
use crate::output::{Output, pairs, table};
use crate::setup::{self, hex};

/// Runs the command.
pub async fn run(command: GroupCommand, output: Output) -> Result<()> {
    match command {
        GroupCommand::Create { name, nodes, replicas, kind, protocol, connection } => {
            let client = connection::connect(&connection).await?;
            let members = match replicas {
                Some(count) => first_nodes(&client.admin().list_groups().await?, count)?,
                None => nodes,
            };
            let kind = kind.map_or(GroupKind::Unspecified, GroupKind::from);
            let protocol = protocol.map_or(proto::Protocol::Unspecified, proto::Protocol::from);
            let request = CreateGroupRequest {
                name: name.clone(),
                kind: kind.into(),
                protocol: protocol.into(),
                members,
                limits: None,
            };
            let group = client.admin().create_group(request).await?.group.unwrap_or_default();
            output.show(&describe(&group), || {
                let nodes = group.members.len();
                format!("group {name} is number {} on {nodes} nodes; deploy a component to it next", group.id)
            })
        }
        GroupCommand::List { connection } => {
            let groups = connection::connect(&connection).await?.admin().list_groups().await?;
            let value: Vec<_> = groups.iter().map(describe).collect();
            let columns = ["group", "name", "protocol", "epoch", "members", "leader", "component"];
            output.show(&Value::from(value), || table(&columns, groups.iter().map(row)))
        }
        GroupCommand::Describe { group, connection } => {
            let client = connection::connect(&connection).await?;
            let group = setup::find_group(&client, &group).await?;
            show_group(&client.admin().describe_group(group.name()).await?, output)
        }
    }
}

/// Runs `quorate transfer-leader`.
pub async fn transfer_leader(arguments: TransferArguments, output: Output) -> Result<()> {
    let client = connection::connect(&arguments.connection).await?;
    let group = setup::find_group(&client, &arguments.group).await?;
    let leader =
        client.admin().transfer_leader(group.name(), arguments.node).await?.leader.unwrap_or_default();
    let value = json!({ "group": group.name(), "leader": leader.node, "term": leader.term });
    output.show(&value, || format!("node {} leads {} in term {}", leader.node, group.name(), leader.term))
}

/// Runs `quorate snapshot`.
pub async fn snapshot(arguments: SnapshotArguments, output: Output) -> Result<()> {
    let client = connection::connect(&arguments.connection).await?;
    let group = setup::find_group(&client, &arguments.group).await?;
    let info = client.admin().describe_group(group.name()).await?.group.unwrap_or_default();
    let wanted = |node: u64| arguments.node.is_none_or(|only| only == node);
    let mut taken = Vec::new();
    for member in info.members.iter().filter(|member| wanted(member.node)) {
        taken.push(client.admin_at(&member.address)?.snapshot(group.name()).await?);
    }
    if taken.is_empty() {
        return Err(Fault::usage(format!("no such node is a member of {}", group.name())));
    }
    let taken = taken.iter().map(|reply| (reply.node, reply.index, hex(&reply.digest)));
    let taken: Vec<_> = taken.collect();
    let value =
        taken.iter().map(|(node, index, digest)| json!({ "node": node, "index": index, "digest": digest }));
    let rows =
        taken.iter().map(|(node, index, digest)| [node.to_string(), index.to_string(), digest.clone()]);
    output.show(&value.collect(), || table(&["node", "index", "digest"], rows))
}

/// The first nodes of the cluster, which are the members of its catalog.
fn first_nodes(groups: &[GroupInfo], count: usize) -> Result<Vec<u64>> {
    let catalog = groups.iter().find(|group| group.id == 0);
    let nodes: Vec<_> = catalog.iter().flat_map(|group| &group.members).map(|member| member.node).collect();
    if count == 0 || count > nodes.len() {
        return Err(Fault::usage(format!("--replicas {count}: the cluster has {} nodes", nodes.len())));
    }
    Ok(nodes[..count].to_vec())
}

fn protocol_name(group: &GroupInfo) -> &'static str {
    match group.protocol() {
        proto::Protocol::Raft => "raft",
        proto::Protocol::Pbft => "pbft",
        proto::Protocol::Hotstuff => "hotstuff",
        proto::Protocol::Unspecified => "",
    }
}

fn kind_name(group: &GroupInfo) -> &'static str {
    match group.kind() {
        GroupKind::Crash => "crash",
        GroupKind::Hybrid => "hybrid",
        GroupKind::Byzantine => "byzantine",
        GroupKind::Unspecified => "",
    }
}

fn role_name(replica: &ReplicaInfo) -> &'static str {
    match replica.role() {
        ReplicaRole::Leader => "leader",
        ReplicaRole::Follower => "follower",
        ReplicaRole::Candidate => "candidate",
        ReplicaRole::Learner => "learner",
        ReplicaRole::Unspecified => "unknown",
    }
}

fn state_name(replica: &ReplicaInfo) -> &'static str {
    match replica.state() {
        MemberState::Active => "active",
        MemberState::Suspected => "suspected",
        MemberState::Byzantine => "byzantine",
        MemberState::Offline => "offline",
        MemberState::Unspecified => "unknown",
    }
}

fn leader(group: &GroupInfo) -> Option<u64> {
    group.leader.as_ref().map(|leader| leader.node).filter(|node| *node != 0)
}

fn component_label(group: &GroupInfo) -> String {
    let component = group.component.as_ref();
    component.map(|found| format!("{}@{}", found.name, found.version)).unwrap_or_default()
}

fn row(group: &GroupInfo) -> Vec<String> {
    let members: Vec<_> = group.members.iter().map(|member| member.node.to_string()).collect();
    vec![
        group.id.to_string(),
        group.name.clone(),
        protocol_name(group).to_owned(),
        group.epoch.to_string(),
        members.join(","),
        leader(group).map(|node| node.to_string()).unwrap_or_default(),
        component_label(group),
    ]
}

fn describe(group: &GroupInfo) -> Value {
    let member = |member: &proto::GroupMember| {
        json!({
            "node": member.node, "address": member.address, "votes": member.role() == MemberRole::Voter,
        })
    };
    let component = group.component.as_ref().map(
        |found| json!({ "name": found.name, "version": found.version, "digest": setup::digest_text(found) }),
    );
    json!({
        "id": group.id, "name": group.name, "kind": kind_name(group), "protocol": protocol_name(group),
        "epoch": group.epoch, "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "leader": leader(group), "component": component,
    })
}

fn describe_replica(replica: &ReplicaInfo) -> Value {
    let digest = (replica.digest_index > 0)
        .then(|| json!({ "index": replica.digest_index, "digest": hex(&replica.digest) }));
    let reason = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "node": replica.node, "role": role_name(replica), "term": replica.term,
        "last_index": replica.last_index, "commit_index": replica.commit_index,
        "applied_index": replica.applied_index, "lag": replica.lag, "digest": digest,
        "halted": reason(&replica.halted_reason), "fenced": reason(&replica.fenced_reason),
        "reachable": replica.reachable, "state": state_name(replica),
    })
}

fn show_group(reply: &DescribeGroupReply, output: Output) -> Result<()> {
    let group = reply.group.clone().unwrap_or_default();
    let mut value = describe(&group);
    value["replicas"] = reply.replicas.iter().map(describe_replica).collect();
    value["sessions"] = reply.sessions.into();
    output.show(&value, || {
        let head = pairs(&[
            ("group", format!("{} (number {})", group.name, group.id)),
            ("made for", format!("{} faults", kind_name(&group))),
            ("protocol", format!("{}, epoch {}", protocol_name(&group), group.epoch)),
            ("component", component_label(&group)),
            ("sessions", reply.sessions.to_string()),
        ]);
        let columns = ["node", "role", "term", "last", "commit", "applied", "lag", "state", "health"];
        let rows = reply.replicas.iter().map(replica_row);
        format!("{head}\n{}", table(&columns, rows))
    })
}

fn replica_row(replica: &ReplicaInfo) -> Vec<String> {
    let health = if !replica.fenced_reason.is_empty() {
        format!("fenced: {}", replica.fenced_reason)
    } else if !replica.halted_reason.is_empty() {
        format!("halted: {}", replica.halted_reason)
    } else if replica.reachable {
        "good".to_owned()
    } else {
        "not reachable".to_owned()
    };
    let mut row = vec![replica.node.to_string(), role_name(replica).to_owned()];
    let counters =
        [replica.term, replica.last_index, replica.commit_index, replica.applied_index, replica.lag];
    row.extend(counters.iter().map(u64::to_string));
    row.push(state_name(replica).to_owned());
    row.push(health);
    row
}

impl From<Kind> for GroupKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Crash => Self::Crash,
            Kind::Hybrid => Self::Hybrid,
            Kind::Byzantine => Self::Byzantine,
        }
    }
}

impl From<Protocol> for proto::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Raft => Self::Raft,
            Protocol::Pbft => Self::Pbft,
            Protocol::Hotstuff => Self::Hotstuff,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_client::proto::GroupMember;

    use super::*;

    #[test]
    fn replicas_are_the_first_nodes_and_never_more_than_there_are() {
        let members = (1..=3).map(|node| GroupMember { node, ..GroupMember::default() }).collect();
        let groups = [GroupInfo { members, ..GroupInfo::default() }];
        assert_eq!(first_nodes(&groups, 2).unwrap(), [1, 2]);
        assert!(first_nodes(&groups, 4).unwrap_err().to_string().contains("3 nodes"));
        assert!(first_nodes(&groups, 0).is_err());
    }

    /// What could go wrong: an operator reads that a member is well which the log proves to have lied.
    #[test]
    fn the_state_of_each_member_is_shown_to_people_and_programs() {
        for (state, name) in [
            (MemberState::Active, "active"),
            (MemberState::Suspected, "suspected"),
            (MemberState::Byzantine, "byzantine"),
            (MemberState::Offline, "offline"),
            (MemberState::Unspecified, "unknown"),
        ] {
            let replica = ReplicaInfo { state: state.into(), ..ReplicaInfo::default() };
            assert_eq!(describe_replica(&replica)["state"], name);
            assert!(replica_row(&replica).contains(&name.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_replica_that_is_not_well_says_why() {
        let mut replica = ReplicaInfo { reachable: true, ..ReplicaInfo::default() };
        let health = |replica: &ReplicaInfo| replica_row(replica).pop().unwrap();
        assert_eq!(health(&replica), "good");
        replica.halted_reason = "watchdog".into();
        assert!(health(&replica).contains("watchdog"));
        replica.fenced_reason = "older boot".into();
        assert!(health(&replica).contains("older boot"));
    }
}
