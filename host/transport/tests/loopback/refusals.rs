//! What does not belong is refused, for the right reason, and disturbs nobody.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message;
use quorate_transport::pki::{Authority, Validity};
use quorate_transport::proto::{self, RefusalCode as Code};
use quorate_transport::{
    AcceptLimits, LinkFault, RefusalCode, RequestError, Role, Tls, TlsPem, Transport, TransportConfig,
    TransportError, TransportLimits,
};
use quorate_types::{BootNumber, ClusterId, Digest, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fixtures::{
    CLUSTER, GENESIS, Node, PATIENCE, Plan, Stranger, authority, frames_message, hello_message, linked,
};

fn tls(pem: &quorate_transport::pki::Credentials) -> Tls {
    Tls::from_pem(&pem.to_tls_pem()).unwrap()
}

/// Node 2, which knows a node 1 that is not running.
async fn node_two(authority: &Authority) -> Node {
    let node = Plan::new(authority, 2).start().await;
    node.know(&[(1, "127.0.0.1:1".to_owned())]);
    node
}

/// Why `node` refuses a link that opens with `change` of a fitting hello.
async fn refusal_of_link(
    tls: &Tls,
    node: &Node,
    change: impl FnOnce(proto::Hello) -> proto::Hello,
) -> proto::Refusal {
    let mut stranger = Stranger::connect(tls, node).await.unwrap();
    let hello = change(stranger.hello(node.id.0));
    let status = stranger.link(vec![hello_message(hello)]).await.map(|_| ()).unwrap_err();
    proto::Refusal::decode(status.details()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hello_that_does_not_fit_is_refused_for_its_reason() {
    let authority = authority();
    let mut node = node_two(&authority).await;
    let first = tls(&authority.issue_node(NodeId(1), &[]).unwrap());
    let refused = refusal_of_link(&first, &node, |hello| proto::Hello { version: 9, ..hello }).await;
    assert_eq!(refused.code(), Code::Version);
    assert!(refused.message.contains("speaks peer protocol 9"), "{}", refused.message);
    let other_genesis = Bytes::from(vec![1; 32]);
    let refused =
        refusal_of_link(&first, &node, |hello| proto::Hello { genesis: other_genesis, ..hello }).await;
    assert_eq!(refused.code(), Code::Genesis);
    let refused = refusal_of_link(&first, &node, |hello| proto::Hello { node: 3, ..hello }).await;
    assert_eq!(refused.code(), Code::Certificate);
    let refused = refusal_of_link(&first, &node, |hello| proto::Hello { receiver: 3, ..hello }).await;
    assert_eq!(refused.code(), Code::Receiver);

    // A valid certificate of a node that is not configured, and one whose links this node opens itself.
    let second = tls(&authority.issue_node(NodeId(9), &[]).unwrap());
    assert_eq!(refusal_of_link(&second, &node, |hello| hello).await.code(), Code::Member);
    node.know(&[(1, "127.0.0.1:1".to_owned()), (9, "127.0.0.1:1".to_owned())]);
    assert_eq!(refusal_of_link(&second, &node, |hello| hello).await.code(), Code::Direction);

    // The same certificate with a fitting hello is taken.
    let mut stranger = Stranger::connect(&first, &node).await.unwrap();
    let hello = hello_message(stranger.hello(2));
    let (_inbound, _keep) = stranger.link(vec![hello]).await.unwrap();
    node.connected_to(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_opens_with_frames_or_nothing_is_refused() {
    let authority = authority();
    let node = node_two(&authority).await;
    let first = tls(&authority.issue_node(NodeId(1), &[]).unwrap());
    let mut stranger = Stranger::connect(&first, &node).await.unwrap();
    for message in [frames_message(vec![Bytes::from_static(b"x")]), proto::LinkMessage::default()] {
        let status = stranger.link(vec![message]).await.map(|_| ()).unwrap_err();
        assert_eq!(proto::Refusal::decode(status.details()).unwrap().code(), Code::Malformed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_refused_on_the_peer_port() {
    let authority = authority();
    let node = node_two(&authority).await;
    let client = tls(&authority.issue_client("ada", Role::Admin).unwrap());
    let refused = refusal_of_link(&client, &node, |hello| proto::Hello { node: 1, ..hello }).await;
    assert_eq!(refused.code(), Code::Role);
    assert!(refused.message.contains("admin ada"), "{}", refused.message);
    let mut stranger = Stranger::connect(&client, &node).await.unwrap();
    let hello = proto::Hello { node: 1, ..stranger.hello(2) };
    let status = stranger.client.knock(hello.clone()).await.unwrap_err();
    assert_eq!(proto::Refusal::decode(status.details()).unwrap().code(), Code::Role);
    let call = proto::CallRequest { hello: Some(hello), body: Bytes::new() };
    let status = stranger.client.call(call).await.unwrap_err();
    assert_eq!(proto::Refusal::decode(status.details()).unwrap().code(), Code::Role);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_different_genesis_refuse_each_other_and_say_why() {
    let authority = authority();
    let one = Plan::new(&authority, 1).start().await;
    let two = Plan { genesis: Digest([0x11; 32]), ..Plan::new(&authority, 2) }.start().await;
    let addresses = [(1, one.address()), (2, two.address())];
    one.know(&addresses);
    two.know(&addresses);
    let is_genesis = |fault: &LinkFault| match fault {
        LinkFault::Refused(refusal) => refusal.code == RefusalCode::Genesis,
        _ => false,
    };
    let fault = one.fault(2, is_genesis).await;
    assert!(fault.to_string().contains("give both the same initial nodes"), "{fault}");
    two.fault(1, is_genesis).await;
    let asked = two.ask(1, b"x").await;
    assert!(matches!(&asked, Err(RequestError::Link { fault, .. }) if is_genesis(fault)), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_recognised_by_its_certificate() {
    let one = Plan::new(&authority(), 1).start().await;
    let two = Plan::new(&authority(), 2).start().await;
    one.know(&[(2, two.address())]);
    let fault = one.fault(2, |fault| matches!(fault, LinkFault::UnknownAuthority { .. })).await;
    assert!(fault.to_string().contains("check that address in [peers]"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_at_a_peers_address_is_recognised_by_its_certificate() {
    let authority = authority();
    let one = Plan::new(&authority, 1).start().await;
    let three = Plan::new(&authority, 3).start().await;
    one.know(&[(2, three.address())]);
    let fault = one.fault(2, |fault| matches!(fault, LinkFault::WrongNode { .. })).await;
    assert!(fault.to_string().contains("node-3."), "{fault}");
    let asked = one.ask(2, b"x").await;
    assert!(matches!(asked, Err(RequestError::Link { fault: LinkFault::WrongNode { .. }, .. })), "{asked:?}");
}

/// A dialer that shows `shown` whatever its own checks would say of it.
fn rogue(authority: &Authority, shown: &quorate_transport::pki::Credentials) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(shown.certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(shown.key_pem.as_bytes()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// The alert with which `node` answers a dialer.
async fn alert(config: rustls::ClientConfig, node: &Node) -> rustls::AlertDescription {
    let socket = TcpStream::connect(node.transport.local_address()).await.unwrap();
    let name = quorate_transport::pki::node_name(CLUSTER, node.id);
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let handshake = connector.connect(name.try_into().unwrap(), socket).await;
    let error = match handshake {
        // The server judges the certificate after this side has finished.
        Ok(mut stream) => timeout(PATIENCE, stream.read(&mut [0; 64])).await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_are_expired_or_issued_elsewhere_end_with_their_alert() {
    let ours = authority();
    let node = node_two(&ours).await;
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3_600));
    let past = Validity { from: now - 2 * hour, until: now - hour };
    let expired = ours.issue_node_valid(NodeId(1), &[], past).unwrap();
    assert_eq!(alert(rogue(&ours, &expired), &node).await, rustls::AlertDescription::CertificateExpired);
    let foreign = authority().issue_node(NodeId(1), &[]).unwrap();
    assert_eq!(alert(rogue(&ours, &foreign), &node).await, rustls::AlertDescription::UnknownCA);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_authorities_are_trusted_without_a_restart() {
    let (old, new) = (authority(), authority());
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    let mut two = Plan::new(&old, 2).start().await;
    // Node 1 has a certificate of the new authority already and trusts both; node 2 trusts the old one.
    let mut issued = new.issue_node(NodeId(1), &[]).unwrap();
    issued.authority_pem = both.clone();
    let mut one = Plan { credentials: issued, ..Plan::new(&old, 1) }.start().await;
    let addresses = [(1, one.address()), (2, two.address())];
    two.know(&addresses);
    one.know(&addresses);
    let fault = one.fault(2, |fault| matches!(fault, LinkFault::OwnCertificate { .. })).await;
    assert!(fault.to_string().contains("issue a new one for this node"), "{fault}");

    let current = old.issue_node(NodeId(2), &[]).unwrap();
    let pem = TlsPem { authority: both, certificate: current.certificate_pem, key: current.key_pem };
    two.tls.replace(&pem).unwrap();
    one.connected_to(2).await;
    two.connected_to(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_node_does_not_start() {
    let authority = authority();
    for (node, cluster) in [(2, CLUSTER), (1, ClusterId([0; 16]))] {
        let config = TransportConfig {
            node: NodeId(node),
            cluster,
            genesis: GENESIS,
            boot: BootNumber(1),
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: Default::default(),
            tls: tls(&authority.issue_node(NodeId(1), &[]).unwrap()),
            limits: TransportLimits::default(),
        };
        let handler = Plan::new(&authority, 5).start().await.recorder;
        let started = Transport::start(config, handler).await;
        assert!(matches!(started, Err(TransportError::WrongCertificate { .. })));
    }
}

/// Writes `bytes` to the peer port and returns what comes back until the node closes.
async fn shout(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(node.transport.local_address()).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_peer_port_is_closed_and_disturbs_no_link() {
    let mut nodes = linked(&authority(), 2).await;
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice();
    for garbage in
        [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(), http2, &[0xff; 4_096], &[0x16, 3, 1, 0xff, 0xff]]
    {
        if garbage.len() == 5 {
            // The beginning of a TLS record whose rest never comes is closed by the other end's leaving.
            let mut socket = TcpStream::connect(nodes[1].transport.local_address()).await.unwrap();
            socket.write_all(garbage).await.unwrap();
            socket.shutdown().await.unwrap();
            timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
            continue;
        }
        let answer = shout(&nodes[1], garbage).await;
        // At most a TLS alert comes back.
        assert!(answer.is_empty() || (answer[0] == 0x15 && answer.len() == 7), "{answer:?}");
    }
    nodes[0].send(2, b"undisturbed");
    assert_eq!(nodes[1].frames_from(1, 1).await, [Bytes::from_static(b"undisturbed")]);
    assert_eq!(nodes[1].transport.status()[0].links, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_closed_in_time_and_cannot_keep_peers_out() {
    let authority = authority();
    let accept =
        AcceptLimits { handshakes_max: 2, connections_max: 8, handshake_timeout: Duration::from_millis(100) };
    let limits = TransportLimits { accept, ..TransportLimits::default() };
    let mut two = Plan { limits, ..Plan::new(&authority, 2) }.start().await;
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(TcpStream::connect(two.transport.local_address()).await.unwrap());
    }
    let mut one = Plan::new(&authority, 1).start().await;
    two.know(&[(1, one.address())]);
    one.know(&[(2, two.address())]);
    one.connected_to(2).await;
    two.connected_to(1).await;
    for mut socket in silent {
        let closed = timeout(PATIENCE, socket.read(&mut [0; 16])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_above_the_bound_are_closed_at_once() {
    let accept = AcceptLimits { handshakes_max: 1, connections_max: 1, ..AcceptLimits::default() };
    let limits = TransportLimits { accept, ..TransportLimits::default() };
    let authority = authority();
    let node = Plan { limits, ..Plan::new(&authority, 2) }.start().await;
    let first = tls(&authority.issue_node(NodeId(1), &[]).unwrap());
    let held = first.connect_to_node(&node.address(), node.id).await.unwrap();
    let mut socket = TcpStream::connect(node.transport.local_address()).await.unwrap();
    let closed = timeout(PATIENCE, socket.read(&mut [0; 16])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_the_protocol_does_not_allow_end_the_link() {
    let authority = authority();
    let limits = TransportLimits { frame_bytes_max: 4_096, ..TransportLimits::default() };
    let mut node = Plan { limits, ..Plan::new(&authority, 2) }.start().await;
    node.know(&[(1, "127.0.0.1:1".to_owned())]);
    let first = tls(&authority.issue_node(NodeId(1), &[]).unwrap());
    let far_too_large = Bytes::from(vec![0; limits.call_bytes_max + (1 << 20)]);
    let cases = [
        (frames_message(vec![Bytes::from(vec![0; 4_097])]), "a frame of 4097 bytes"),
        (frames_message(vec![Bytes::new()]), "a frame of 0 bytes"),
        (frames_message(vec![far_too_large]), "length too large"),
    ];
    for (message, reason) in cases {
        let mut stranger = Stranger::connect(&first, &node).await.unwrap();
        let (mut inbound, _keep) = {
            let hello = hello_message(stranger.hello(2));
            let fine = frames_message(vec![Bytes::from(vec![1; 4_096])]);
            stranger.link(vec![hello, fine, message]).await.unwrap()
        };
        node.connected_to(1).await;
        assert_eq!(node.frames_from(1, 1).await[0].len(), 4_096);
        let why = node.disconnected_from(1).await;
        assert!(why.contains(reason), "{why}");
        // The stranger is told its hello, then the end.
        assert!(timeout(PATIENCE, inbound.message()).await.unwrap().unwrap().is_some());
        let end = timeout(PATIENCE, inbound.message()).await.unwrap();
        assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_link_takes_the_place_of_an_older_one() {
    let authority = authority();
    let mut node = node_two(&authority).await;
    let first = tls(&authority.issue_node(NodeId(1), &[]).unwrap());
    let mut older = Stranger::connect(&first, &node).await.unwrap();
    let hello = hello_message(older.hello(2));
    let (mut older_inbound, _older_keep) = older.link(vec![hello.clone()]).await.unwrap();
    node.connected_to(1).await;
    let mut newer = Stranger::connect(&first, &node).await.unwrap();
    let (mut newer_inbound, _newer_keep) = newer.link(vec![hello]).await.unwrap();
    assert_eq!(node.disconnected_from(1).await, "a newer link took its place");
    node.connected_to(1).await;
    node.send(1, b"to the newer");
    for _ in 0..2 {
        assert!(timeout(PATIENCE, newer_inbound.message()).await.unwrap().unwrap().is_some());
    }
    assert!(timeout(PATIENCE, older_inbound.message()).await.unwrap().unwrap().is_some(), "its hello");
    let end = timeout(PATIENCE, older_inbound.message()).await.unwrap();
    assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
}
