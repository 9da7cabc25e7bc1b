//! `quorate status`: how each node is.
//!
//! Relies on the client library. Promises a line for every node of the cluster, those that do not answer
//! included, and a failure if none answers. Knows no group.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use quorate_client::proto::{Histogram, StatusReply, VoteStats};
use serde_json::{Value, json};

use crate::arguments::StatusArguments;
use crate::connection;
use crate::output::{Output, table};
use crate::setup::hex;

/// How long one node may take to answer: one that is down should not hide the others.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the command.
pub async fn run(arguments: StatusArguments, output: Output) -> Result<()> {
    let client = connection::connect(&arguments.connection).await?;
    // The catalog is replicated by every initial node, so its members are the nodes.
    let catalog = client.admin().describe_group("catalog").await;
    let addresses: BTreeMap<u64, String> = match catalog {
        Ok(reply) => {
            let members = reply.group.unwrap_or_default().members;
            members.into_iter().map(|member| (member.node, member.address)).collect()
        }
        Err(_) => {
            let status = client.admin().status().await?;
            [(status.node, status.address)].into()
        }
    };
    let mut nodes = Vec::new();
    for (node, address) in addresses {
        let admin = client.admin_at(&address)?.with_deadline(NODE_TIMEOUT);
        nodes.push((node, address, admin.status().await.map_err(|error| error.to_string())));
    }
    let value: Vec<_> =
        nodes.iter().map(|(node, address, status)| describe(*node, address, status)).collect();
    let columns =
        ["node", "address", "version", "boot", "up", "leads", "peers", "flushes", "flush p99", "fault"];
    let rows = nodes.iter().map(|(node, address, status)| row(*node, address, status));
    output.show(&Value::from(value), || table(&columns, rows))
}

fn describe(node: u64, address: &str, status: &Result<StatusReply, String>) -> Value {
    let status = match status {
        Ok(status) => status,
        Err(fault) => return json!({ "node": node, "address": address, "answers": false, "fault": fault }),
    };
    let log = status.log.unwrap_or_default();
    let peers: Vec<_> = status
        .peers
        .iter()
        .map(|peer| {
            json!({
                "node": peer.node, "address": peer.address, "connected": peer.connected, "boot": peer.boot,
                "fault": peer.fault, "queued_bytes": peer.queued_bytes, "links": peer.links,
                "bytes_sent": peer.bytes_sent, "bytes_received": peer.bytes_received,
                "signatures_refused": peer.signatures_refused, "frames_refused": peer.frames_refused,
                "payloads_refused": peer.payloads_refused,
                "snapshots_refused": peer.snapshots_refused, "frames_overloaded": peer.frames_overloaded,
            })
        })
        .collect();
    json!({
        "node": status.node, "address": address, "answers": true, "cluster": hex(&status.cluster),
        "version": status.version, "boot": status.boot, "uptime_ms": status.uptime_ms,
        "groups": status.groups, "leads": status.leads, "connections": status.connections, "peers": peers,
        "log": {
            "flushes": log.flushes, "records": log.records, "bytes": log.bytes, "segments": log.segments,
            "flush_p50_us": log.flush_p50_us, "flush_p99_us": log.flush_p99_us,
        },
        "votes": votes(&status.votes.clone().unwrap_or_default()),
    })
}

fn votes(votes: &VoteStats) -> Value {
    let histogram = |found: &Option<Histogram>| {
        let Histogram { bounds, counts, sum } = found.clone().unwrap_or_default();
        json!({ "bounds": bounds, "counts": counts, "sum": sum })
    };
    json!({
        "accepted": votes.accepted, "rejected": votes.rejected, "answered": votes.answered,
        "refused": votes.refused, "certificates_known": votes.certificates_known,
        "certificates_verified": votes.certificates_verified, "on_card": votes.on_card,
        "fallbacks": votes.fallbacks, "breaker_opened": votes.breaker_opened,
        "batch_size": histogram(&votes.batch_size), "queue_time_us": histogram(&votes.queue_time),
        "answer_time_us": histogram(&votes.answer_time), "verify_time_us": histogram(&votes.verify_time),
    })
}

fn row(node: u64, address: &str, status: &Result<StatusReply, String>) -> Vec<String> {
    let mut row = vec![node.to_string(), address.to_owned()];
    match status {
        Ok(status) => {
            let connected = status.peers.iter().filter(|peer| peer.connected).count();
            let leads: Vec<_> = status.leads.iter().map(u64::to_string).collect();
            let log = status.log.unwrap_or_default();
            row.extend([
                status.version.clone(),
                status.boot.to_string(),
                format!("{} s", status.uptime_ms / 1_000),
                leads.join(","),
                format!("{connected}/{}", status.peers.len()),
                log.flushes.to_string(),
                format!("{} us", log.flush_p99_us),
                String::new(),
            ]);
        }
        Err(fault) => {
            row.extend(std::iter::repeat_n(String::new(), 7));
            row.push(fault.clone());
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_answer_has_a_row_of_the_same_width() {
        let answers = row(1, "a:1", &Ok(StatusReply::default()));
        let silent = row(2, "b:2", &Err("gone".into()));
        assert_eq!(answers.len(), silent.len());
        assert_eq!(silent.last().map(String::as_str), Some("gone"));
        assert_eq!(describe(2, "b:2", &Err("gone".into()))["answers"], false);
    }

    #[test]
    fn what_a_node_verified_is_shown_with_its_classes() {
        let queue_time = Some(Histogram { bounds: vec![50, 100], counts: vec![4, 1, 0], sum: 190 });
        let votes = Some(VoteStats { refused: 2, queue_time, ..VoteStats::default() });
        let shown = describe(1, "a:1", &Ok(StatusReply { votes, ..StatusReply::default() }));
        assert_eq!(shown["votes"]["refused"], 2);
        assert_eq!(
            shown["votes"]["queue_time_us"],
            json!({ "bounds": [50, 100], "counts": [4, 1, 0], "sum": 190 })
        );
        let without = describe(1, "a:1", &Ok(StatusReply::default()));
        assert_eq!(without["votes"]["accepted"], 0, "an older node says nothing of it");
    }
}
