//! `quorate evidence`: proofs that replicas lied.
//!
//! Relies on a node for the proofs and on nobody for what they prove: each is verified here. Promises that a
//! proof which does not hold is a failure. Knows no cluster but through the keys of the group's members.

use anyhow::{Context as _, Result, bail};
use quorate_client::proto::{Evidence as WireEvidence, ListEvidenceReply};
use quorate_consensus::hotstuff::Evidence;
use quorate_crypto::{PublicKey, Scope, Validator, ValidatorSet};
use quorate_types::{ClusterId, Epoch, GroupId, NodeId, Protocol};
use serde_json::{Value, json};

use crate::arguments::{ConnectionArguments, EvidenceCommand};
use crate::connection;
use crate::output::{Output, table};
use crate::setup::{self, hex};

/// Runs the command.
pub async fn run(command: EvidenceCommand, output: Output) -> Result<()> {
    match command {
        EvidenceCommand::List { group, connection } => {
            let reply = fetch(&group, &connection).await?;
            let value: Vec<_> = reply.evidence.iter().map(describe).collect();
            let columns = ["node", "kind", "view", "entry", "lie"];
            output.show(&Value::from(value), || table(&columns, reply.evidence.iter().map(row)))
        }
        EvidenceCommand::Verify { group, connection } => {
            let reply = fetch(&group, &connection).await?;
            let set = members(&reply)?;
            let verdicts: Vec<_> = reply.evidence.iter().map(|one| (one, verify(one, &set))).collect();
            let value = verdicts.iter().map(|(one, verdict)| {
                let mut value = describe(one);
                value["holds"] = verdict.is_ok().into();
                value["fault"] = verdict.as_ref().err().map(|fault| format!("{fault:#}")).into();
                value
            });
            let columns = ["node", "kind", "view", "entry", "lie", "verdict"];
            let rows = verdicts.iter().map(|(one, verdict)| {
                let mut row = row(one);
                row.push(verdict.as_ref().err().map_or("it lied".to_owned(), |fault| format!("{fault:#}")));
                row
            });
            output.show(&value.collect(), || table(&columns, rows))?;
            let refused = verdicts.iter().filter(|(_, verdict)| verdict.is_err()).count();
            if refused > 0 {
                bail!("{refused} of {} proofs do not hold", verdicts.len());
            }
            Ok(())
        }
    }
}

async fn fetch(group: &str, connection: &ConnectionArguments) -> Result<ListEvidenceReply> {
    let client = connection::connect(connection).await?;
    let group = setup::find_group(&client, group).await?;
    Ok(client.admin().list_evidence(group.name()).await?)
}

/// Those whose signatures count.
///
/// # Errors
///
/// The group signs nothing, or the node told what cannot be.
pub fn members(reply: &ListEvidenceReply) -> Result<ValidatorSet> {
    let cluster = <[u8; 16]>::try_from(&reply.cluster[..]).context("the node named no cluster")?;
    let scope = Scope {
        cluster: ClusterId(cluster),
        group: GroupId(reply.group),
        epoch: Epoch(reply.epoch),
        protocol: Protocol::HotStuff,
    };
    let member = |member: &quorate_client::proto::MemberKey| {
        let bytes = <[u8; 32]>::try_from(&member.key[..]).context("a key has 32 bytes")?;
        Ok(Validator { node: NodeId(member.node), key: PublicKey::register(&bytes)? })
    };
    let members = reply.keys.iter().map(member).collect::<Result<_>>()?;
    ValidatorSet::new(scope, members).context("the group signs nothing, so there are no proofs")
}

/// Verifies a proof here, whoever delivered it.
///
/// # Errors
///
/// Why it proves nothing against the node it names.
pub fn verify(evidence: &WireEvidence, set: &ValidatorSet) -> Result<()> {
    let proof = Evidence::from_bytes(evidence.proof.clone()).context("the proof cannot be read")?;
    if proof.signer().0 != evidence.node {
        bail!("the proof is about node {}", proof.signer().0);
    }
    Ok(proof.verify(set)?)
}

fn describe(evidence: &WireEvidence) -> Value {
    let index = (evidence.index > 0).then_some(evidence.index);
    json!({
        "node": evidence.node, "kind": evidence.kind, "view": evidence.view, "index": index,
        "digest": hex(&evidence.digest), "proof": hex(&evidence.proof),
    })
}

fn row(evidence: &WireEvidence) -> Vec<String> {
    let entry = if evidence.index > 0 { evidence.index.to_string() } else { "not yet".to_owned() };
    let lie = hex(&evidence.digest).chars().take(12).collect();
    vec![evidence.node.to_string(), evidence.kind.clone(), evidence.view.to_string(), entry, lie]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_client::proto::MemberKey;
    use quorate_crypto::{SecretKey, Statement, StatementKind};
    use quorate_types::{Digest, LogIndex, View};

    use super::*;

    fn reply() -> ListEvidenceReply {
        let secret = |node: u64| SecretKey::from_seed(&[node as u8; 32]);
        let keys =
            (1..=4).map(|node| MemberKey { node, key: secret(node).public().to_bytes().to_vec().into() });
        let mut reply = ListEvidenceReply {
            group: 3,
            cluster: vec![1; 16].into(),
            epoch: 1,
            keys: keys.collect(),
            evidence: Vec::new(),
        };
        let scope = *members(&reply).unwrap().scope();
        let signed = |content| {
            let (kind, digest) = (StatementKind::Vote, Digest([content; 32]));
            let vote = Statement { scope, kind, view: View(4), index: LogIndex(4), digest };
            (vote, secret(2).sign(&vote))
        };
        let proof = Evidence::of(NodeId(2), signed(1), signed(2)).unwrap();
        reply.evidence.push(WireEvidence { node: 2, proof: proof.to_bytes(), ..WireEvidence::default() });
        reply
    }

    /// What could go wrong: a node calls an honest one a liar and is believed.
    #[test]
    fn proofs_are_believed_only_as_far_as_they_hold() {
        let good = reply();
        let set = members(&good).unwrap();
        assert!(verify(&good.evidence[0], &set).is_ok());
        let other = WireEvidence { node: 3, ..good.evidence[0].clone() };
        assert!(verify(&other, &set).unwrap_err().to_string().contains("about node 2"));
        let mut forged = good.evidence[0].proof.to_vec();
        let end = forged.len() - 1;
        forged[end] ^= 1;
        let forged = WireEvidence { proof: forged.into(), ..good.evidence[0].clone() };
        assert!(verify(&forged, &set).is_err());
        let elsewhere = members(&ListEvidenceReply { group: 4, ..good.clone() }).unwrap();
        assert!(verify(&good.evidence[0], &elsewhere).is_err());
        let silent = ListEvidenceReply { keys: Vec::new(), ..good };
        assert!(members(&silent).is_err());
    }
}
