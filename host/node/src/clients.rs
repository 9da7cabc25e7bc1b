//! Clients as a node knows them: keys that were registered, and certificates by which the cluster's authority lets a
//! key open sessions.
//!
//! Relies on `transport` to say who holds a certificate, and in which role. Promises that a frame which opens a
//! session is let through only for a key that the authority names, for a client that may submit, here and now, and one
//! that puts a component in force only for an operator; and that what was looked at is not looked at again at once.
//! Later frames of a session need no certificate: the session obeys the key that opened it. Knows no thread and no
//! signature.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_crypto::{FrameCheck, KeyError, PublicKey};
use quorate_transport::{Role, Tls};
use quorate_types::{Batch, BatchItem, ClientFrame, ClientKey, ClusterId, Digest, GroupId};

use crate::driver::{ClientRegister, PayloadFault};

/// Keys that are remembered as registered; forgotten all at once when there are more.
const KEYS_MAX: usize = 16_384;
/// Certificates that are remembered as accepted; forgotten all at once when there are more.
const CERTIFICATES_MAX: usize = 4_096;
/// For how long a certificate is not looked at again: it may expire meanwhile.
const CERTIFICATE_HOLDS: Duration = Duration::from_secs(600);

/// What a node knows of clients.
#[derive(Debug)]
pub struct Clients {
    cluster: ClusterId,
    tls: Tls,
    keys: Mutex<BTreeMap<ClientKey, PublicKey>>,
    /// Keys with their certificates: when they were accepted, and the role.
    certified: Mutex<BTreeMap<Digest, (Instant, Role)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    /// Knows nobody yet.
    #[must_use]
    pub fn new(cluster: ClusterId, tls: Tls) -> Self {
        Self { cluster, tls, keys: Mutex::default(), certified: Mutex::default() }
    }

    fn register(&self, key: &ClientKey) -> Result<PublicKey, KeyError> {
        if let Some(known) = locked(&self.keys).get(key) {
            return Ok(*known);
        }
        let registered = PublicKey::register(&key.0)?;
        let mut keys = locked(&self.keys);
        if keys.len() >= KEYS_MAX {
            keys.clear();
        }
        keys.insert(*key, registered);
        Ok(registered)
    }

    /// Whether the authority lets a key do what needs this role.
    fn may(&self, role: Role, frame: &ClientFrame) -> Result<(), PayloadFault> {
        let held = [&frame.key.0[..], &frame.certificate].concat();
        let held = quorate_crypto::digest("quorate 2026 client certificate", &held);
        let known = locked(&self.certified).get(&held).copied();
        if known.is_some_and(|(since, held)| held >= role && since.elapsed() < CERTIFICATE_HOLDS) {
            return Ok(());
        }
        let refused = PayloadFault::Certificate;
        let (holder, key) =
            self.tls.holder_of(&frame.certificate).map_err(|fault| refused(fault.to_string()))?;
        let Some(of_holder) = holder.role().filter(|of_holder| *of_holder >= role) else {
            return Err(refused(format!("{holder} may not ask for this: it needs the role {role}")));
        };
        if key != frame.key.0 {
            return Err(refused(format!("{holder} has another key")));
        }
        let mut certified = locked(&self.certified);
        if certified.len() >= CERTIFICATES_MAX {
            certified.clear();
        }
        certified.insert(held, (Instant::now(), of_holder));
        Ok(())
    }
}

impl ClientRegister for Clients {
    fn check(&self, group: GroupId, frame: &ClientFrame, batch: &Batch) -> Result<FrameCheck, PayloadFault> {
        let role = |item: &BatchItem| match item {
            BatchItem::Activate { .. } => Role::Operator,
            _ => Role::Writer,
        };
        let certified = batch.items.iter().filter(|item| item.needs_certificate());
        if let Some(role) = certified.map(role).max() {
            self.may(role, frame)?;
        }
        Ok(FrameCheck::of(self.cluster, group, frame, |key| self.register(key))?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use quorate_crypto::{SecretKey, sign_frame};
    use quorate_transport::pki::Authority;
    use quorate_types::{NodeId, SessionId};

    use super::*;

    pub(crate) const CLUSTER: ClusterId = ClusterId([1; 16]);
    const GROUP: GroupId = GroupId(3);

    /// A client as its authority made it.
    pub(crate) struct TestClient {
        pub(crate) secret: SecretKey,
        pub(crate) certificate: Bytes,
    }

    pub(crate) fn client(authority: &Authority, role: Role) -> TestClient {
        let made = authority.issue_client("app", role).unwrap();
        let secret = SecretKey::from_pem(made.key_pem.as_bytes()).unwrap();
        let certificate = quorate_transport::pki::der_of(&made.certificate_pem).unwrap();
        TestClient { secret, certificate: certificate.into() }
    }

    pub(crate) fn clients(authority: &Authority) -> Clients {
        let pem = authority.issue_node(NodeId(1), &[]).unwrap().to_tls_pem();
        Clients::new(CLUSTER, Tls::from_pem(&pem).unwrap())
    }

    pub(crate) fn frame(
        client: &TestClient,
        certificate: &Bytes,
        items: Vec<BatchItem>,
    ) -> (ClientFrame, Batch) {
        let batch = Batch { items };
        let frame = sign_frame(CLUSTER, GROUP, &client.secret, certificate.clone(), batch.encode());
        (frame, batch)
    }

    pub(crate) fn open() -> BatchItem {
        BatchItem::OpenSession { client: [7; 16], ttl_ms: 1_000 }
    }

    /// What could go wrong: a leader opens sessions with a key of its own and orders what nobody sent.
    #[test]
    fn only_keys_that_the_authority_names_as_writers_open_sessions() {
        let authority = Authority::create(CLUSTER).unwrap();
        let clients = clients(&authority);
        let [writer, other, reader] =
            [Role::Writer, Role::Admin, Role::Reader].map(|role| client(&authority, role));
        let check = |(frame, batch): (ClientFrame, Batch)| clients.check(GROUP, &frame, &batch);
        let good = check(frame(&writer, &writer.certificate, vec![open()])).unwrap();
        assert!(good.check.verify().is_accepted());
        let refused = |checked: Result<FrameCheck, PayloadFault>| match checked {
            Err(PayloadFault::Certificate(why)) => why,
            other => panic!("not refused: {other:?}"),
        };
        // Also after the same certificate was accepted with its own key.
        let borrowed = refused(check(frame(&other, &writer.certificate, vec![open()])));
        assert!(borrowed.contains("another key"), "{borrowed}");
        let low = refused(check(frame(&reader, &reader.certificate, vec![open()])));
        assert!(low.contains("needs the role writer"), "{low}");
        let stranger = client(&Authority::create(CLUSTER).unwrap(), Role::Admin);
        refused(check(frame(&stranger, &stranger.certificate, vec![open()])));
        refused(check(frame(&writer, &Bytes::from_static(b"garbage"), vec![open()])));
        // A session that is open obeys its key, whatever became of the certificate.
        assert!(check(frame(&reader, &Bytes::new(), vec![BatchItem::KeepSession(SessionId(1))])).is_ok());
    }

    /// What could go wrong: a writer, or a leader with a writer's certificate, puts code of its own in force.
    #[test]
    fn only_operators_put_components_in_force_whatever_was_accepted_before() {
        let authority = Authority::create(CLUSTER).unwrap();
        let clients = clients(&authority);
        let deploy =
            || BatchItem::Activate { component: Digest([1; 32]), parameters: Bytes::new(), after: Some(0) };
        let check = |by: &TestClient, items| {
            let (frame, batch) = frame(by, &by.certificate, items);
            clients.check(GROUP, &frame, &batch)
        };
        let writer = client(&authority, Role::Writer);
        assert!(check(&writer, vec![open()]).is_ok());
        for items in [vec![deploy()], vec![open(), deploy()]] {
            let refused = check(&writer, items).unwrap_err().to_string();
            assert!(refused.contains("needs the role operator"), "{refused}");
        }
        for role in [Role::Operator, Role::Admin] {
            let operator = client(&authority, role);
            assert!(check(&operator, vec![deploy()]).is_ok());
            assert!(check(&operator, vec![open()]).is_ok());
            let (borrowed, batch) = frame(&writer, &operator.certificate, vec![deploy()]);
            let refused = clients.check(GROUP, &borrowed, &batch).unwrap_err().to_string();
            assert!(refused.contains("another key"), "{refused}");
        }
    }

    #[test]
    fn keys_that_nobody_should_register_are_refused() {
        let authority = Authority::create(CLUSTER).unwrap();
        let clients = clients(&authority);
        let (mut frame, batch) = frame(
            &client(&authority, Role::Writer),
            &Bytes::new(),
            vec![BatchItem::KeepSession(SessionId(1))],
        );
        frame.key = ClientKey([0; 32]);
        let refused = clients.check(GROUP, &frame, &batch);
        assert_eq!(refused, Err(PayloadFault::Key(KeyError::SmallOrder)));
    }
}
