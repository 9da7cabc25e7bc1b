//! Evidence on its way from a replica that found it to the log of its group.
//!
//! Relies on the checkpoint thread to keep it and on the group's leader to order it. Promises that evidence found
//! here is tried until the group's log proves its signer a liar, also after a restart, and that a leader which
//! ignores it only delays it until the next one leads. Does not know what was said.

use std::sync::atomic::Ordering;

use quorate_consensus::hotstuff::Evidence;
use quorate_types::GroupId;

use super::{Inner, locked};
use crate::accused::Accused;
use crate::remote::PeerCall;
use crate::shard::ShardInput;
use crate::workers::StoreWork;

/// Pieces of evidence that wait to be ordered, over all groups; a liar makes as many as it likes.
const WAITING_MAX: usize = 1_024;

impl Inner {
    /// Takes up what an earlier start kept.
    pub(super) fn recover_evidence(&self) -> Result<(), quorate_storage::StoreError> {
        let mut waiting = locked(&self.evidence);
        for (group, bytes) in self.store.evidence()?.into_iter().take(WAITING_MAX) {
            match Evidence::from_bytes(bytes) {
                Ok(evidence) => drop(waiting.insert((group, evidence.digest()), evidence)),
                Err(error) => tracing::warn!(%group, %error, "kept evidence cannot be read"),
            }
        }
        Ok(())
    }

    /// Keeps evidence durably and has it ordered in time.
    pub(super) fn keep_evidence(&self, group: GroupId, evidence: Evidence) {
        tracing::warn!(%group, signer = %evidence.signer(), "a member lied: {:?}", evidence.statements());
        let mut waiting = locked(&self.evidence);
        let is_accused = self.is_accused(group, &evidence);
        if is_accused || waiting.len() >= WAITING_MAX {
            return;
        }
        if waiting.insert((group, evidence.digest()), evidence.clone()).is_none()
            && self.store_work.send(StoreWork::Evidence(group, evidence)).is_err()
        {
            tracing::debug!("the checkpoint thread has ended");
        }
    }

    /// Has waiting evidence ordered, one piece for each group and signer; what the log proves is done with.
    pub(super) fn order_evidence(&self) {
        let mut waiting = locked(&self.evidence);
        waiting.retain(|(group, _), evidence| !self.is_accused(*group, evidence));
        let Some(((group, _), evidence)) = waiting.first_key_value() else { return };
        if self.ordering_evidence.swap(true, Ordering::AcqRel) {
            return;
        }
        let (group, evidence) = (*group, evidence.to_bytes().to_vec());
        let inner = self.weak.upgrade().expect("whoever calls holds the node");
        self.runtime.spawn(async move {
            if let Err(error) = inner.at_leader(group, PeerCall::Evidence { group, evidence }).await {
                tracing::warn!(%group, %error, "evidence could not be ordered yet");
            }
            inner.ordering_evidence.store(false, Ordering::Release);
        });
    }

    fn is_accused(&self, group: GroupId, evidence: &Evidence) -> bool {
        locked(&self.reports).get(&group).is_some_and(|report| report.accused.contains(&evidence.signer()))
    }

    /// Of whom a group's log proves a lie at this node; `None` if no replica of it answers.
    pub(crate) async fn accused(&self, group: GroupId) -> Option<Accused> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.shard(group).tell(ShardInput::Accused(group, sender));
        receiver.await.ok().flatten()
    }

    /// Evidence found here that its group's log does not hold yet.
    pub(crate) fn waiting_evidence(&self, group: GroupId) -> Vec<Evidence> {
        let waiting = locked(&self.evidence);
        waiting.iter().filter(|((of, _), _)| *of == group).map(|(_, evidence)| evidence.clone()).collect()
    }
}
