//! What nodes that belong together do: exchange frames in order, find each other again, stay in bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_transport::{LinkFault, RequestError, SendError, TransportLimits};
use quorate_types::{BootNumber, NodeId};

use crate::fixtures::{Event, Plan, authority, linked, linked_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_nodes_exchange_frames_in_order() {
    let mut nodes = linked(&authority(), 3).await;
    const COUNT: usize = 2_000;
    for node in &nodes {
        for to in (1..=3).filter(|to| *to != node.id.0) {
            for number in 0..COUNT {
                let frame = Bytes::from(format!("{}>{to} {number}", node.id.0));
                node.transport.send(NodeId(to), frame).unwrap();
            }
        }
    }
    for node in &mut nodes {
        let us = node.id.0;
        let mut got: BTreeMap<u64, Vec<Bytes>> = BTreeMap::new();
        while got.values().map(Vec::len).sum::<usize>() < 2 * COUNT {
            match node.next().await {
                Event::Frames(from, frames) => got.entry(from.0).or_default().extend(frames),
                other => panic!("{other:?}"),
            }
        }
        for (from, frames) in got {
            let expected: Vec<_> =
                (0..COUNT).map(|number| Bytes::from(format!("{from}>{us} {number}"))).collect();
            assert_eq!(frames, expected);
        }
        assert!(node.transport.status().iter().all(|peer| peer.links == 1), "one stream for each pair");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_the_greatest_size_arrives_and_a_greater_one_is_not_queued() {
    let mut nodes = linked(&authority(), 2).await;
    let bound = TransportLimits::default().frame_bytes_max;
    let frame = Bytes::from(vec![7; bound]);
    nodes[0].transport.send(NodeId(2), frame.clone()).unwrap();
    nodes[0].send(2, b"after");
    assert_eq!(nodes[1].frames_from(1, 2).await, [frame, Bytes::from_static(b"after")]);
    let send = |bytes| nodes[0].transport.send(NodeId(2), Bytes::from(vec![7; bytes]));
    assert_eq!(send(bound + 1), Err(SendError::Size { bytes: bound + 1, bound }));
    assert_eq!(send(0), Err(SendError::Size { bytes: 0, bound }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sending_to_an_absent_or_unknown_node_says_so() {
    let authority = authority();
    let node = Plan::new(&authority, 1).start().await;
    node.know(&[(2, "127.0.0.1:1".to_owned())]);
    let frame = Bytes::from_static(b"x");
    assert_eq!(node.transport.send(NodeId(2), frame.clone()), Err(SendError::NotConnected { to: NodeId(2) }));
    assert_eq!(node.transport.send(NodeId(3), frame.clone()), Err(SendError::UnknownPeer { to: NodeId(3) }));
    assert_eq!(node.transport.send(NodeId(1), frame), Err(SendError::UnknownPeer { to: NodeId(1) }));
    assert_eq!(node.ask(3, b"x").await, Err(RequestError::UnknownPeer { to: NodeId(3) }));
    let asked = node.ask(2, b"x").await;
    assert!(
        matches!(asked, Err(RequestError::Link { fault: LinkFault::Unreachable { .. }, .. })),
        "{asked:?}"
    );
}

/// Ends node `index` and starts it again at its address with a greater boot number.
async fn restart_and_exchange(index: usize) {
    let authority = authority();
    let mut nodes = linked(&authority, 2).await;
    let gone = nodes.remove(index);
    let mut stays = nodes.remove(0);
    let (gone_id, stays_id) = (gone.id.0, stays.id.0);
    let listen = gone.transport.local_address();
    gone.transport.shutdown().await;
    stays.disconnected_from(gone_id).await;
    let lost = stays.transport.send(NodeId(gone_id), Bytes::from_static(b"x"));
    assert_eq!(lost, Err(SendError::NotConnected { to: NodeId(gone_id) }));

    let peers = BTreeMap::from([(stays.id, stays.address())]);
    let mut back = Plan { boot: 2, listen, peers, ..Plan::new(&authority, gone_id) }.start().await;
    back.connected_to(stays_id).await;
    stays.connected_to(gone_id).await;
    assert_eq!(stays.transport.status()[0].connected, Some(BootNumber(2)));
    stays.send(gone_id, b"welcome back");
    back.send(stays_id, b"thanks");
    assert_eq!(back.frames_from(stays_id, 1).await, [Bytes::from_static(b"welcome back")]);
    assert_eq!(stays.frames_from(gone_id, 1).await, [Bytes::from_static(b"thanks")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_returns_after_the_opening_node_restarts() {
    restart_and_exchange(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_returns_after_the_accepting_node_restarts() {
    restart_and_exchange(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_starting_node_knocks_so_that_others_need_not_wait_for_their_next_attempt() {
    // The opening node would try again only after an hour.
    let hour = Duration::from_secs(3_600);
    let limits =
        TransportLimits { retry_delay_min: hour, retry_delay_max: hour, ..TransportLimits::default() };
    let authority = authority();
    let reserved = Plan::new(&authority, 2).start().await;
    let listen = reserved.transport.local_address();
    reserved.transport.shutdown().await;
    let mut first = Plan { limits, ..Plan::new(&authority, 1) }.start().await;
    first.know(&[(2, listen.to_string())]);
    first.fault(2, |fault| matches!(fault, LinkFault::Unreachable { .. })).await;

    let peers = BTreeMap::from([(first.id, first.address())]);
    let mut second = Plan { listen, peers, ..Plan::new(&authority, 2) }.start().await;
    second.connected_to(1).await;
    first.connected_to(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_receiver_fills_the_queue_and_no_more() {
    const MIB: usize = 1 << 20;
    let limits = TransportLimits {
        bytes_queued_max: MIB,
        frame_bytes_max: MIB / 4,
        message_bytes_target: MIB / 4,
        stream_window_bytes: MIB as u32,
        connection_window_bytes: MIB as u32,
        ..TransportLimits::default()
    };
    let mut nodes = linked_with(&authority(), 2, limits).await;
    let recorder = std::sync::Arc::clone(&nodes[1].recorder);
    let frame = |number: u32| Bytes::from([number.to_le_bytes().as_slice(), &[0; 8_188]].concat());
    let mut accepted = 0;
    {
        let _closed = recorder.gate.lock().unwrap();
        // Queue, window, one message in each end's buffers, and the one being handed over.
        let bound = (MIB + MIB + 4 * MIB / 4) / 8_192;
        let mut refused = 0;
        while refused < 20_000 {
            assert!(accepted <= bound as u32, "{accepted} frames were taken from a node that does not read");
            match nodes[0].transport.send(NodeId(2), frame(accepted)) {
                Ok(()) => accepted += 1,
                Err(fault) => {
                    assert_eq!(fault, SendError::Full { to: NodeId(2) });
                    refused += 1;
                    std::thread::yield_now();
                }
            }
        }
        let status = &nodes[0].transport.status()[0];
        assert!(status.queued_bytes <= MIB && status.queued_bytes + 8_192 > MIB, "{status:?}");
    }
    let got = nodes[1].frames_from(1, accepted as usize).await;
    assert!(got.iter().enumerate().all(|(number, got)| *got == frame(number as u32)));
    nodes[0].send(2, b"room again");
    assert_eq!(nodes[1].frames_from(1, 1).await, [Bytes::from_static(b"room again")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_refused_and_bounded() {
    let limits =
        TransportLimits { call_bytes_max: 4 << 20, calls_in_flight_max: 2, ..TransportLimits::default() };
    let nodes = linked_with(&authority(), 2, limits).await;
    // Either node may ask, whoever opened the link.
    assert_eq!(nodes[0].ask(2, b"who").await, Ok(Bytes::from_static(b"n1")));
    assert_eq!(nodes[1].ask(1, b"who").await, Ok(Bytes::from_static(b"n2")));
    let message = "no such snapshot".to_owned();
    assert_eq!(nodes[1].ask(1, b"fail").await, Err(RequestError::Remote { to: NodeId(1), message }));

    let (one, to) = (&nodes[0].transport, NodeId(2));
    let large = Bytes::from(vec![3; 4 << 20]);
    let patience = Duration::from_secs(20);
    assert_eq!(one.request(to, large.clone(), patience).await, Ok(large));
    let larger = Bytes::from(vec![3; (4 << 20) + 1]);
    let refused = RequestError::TooLarge { bytes: larger.len(), bound: 4 << 20 };
    assert_eq!(one.request(to, larger, patience).await, Err(refused));
    let late = one.request(to, Bytes::from_static(b"wait"), Duration::from_millis(1)).await;
    assert_eq!(late, Err(RequestError::TimedOut { to }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_a_node_answers_at_a_time_are_refused_as_busy() {
    let limits = TransportLimits { calls_in_flight_max: 1, ..TransportLimits::default() };
    let nodes = linked_with(&authority(), 2, limits).await;
    let answering = &nodes[1].recorder;
    let (first, ()) = tokio::join!(nodes[0].ask(2, b"wait"), async {
        answering.begun.acquire().await.unwrap().forget();
        assert_eq!(nodes[0].ask(2, b"x").await, Err(RequestError::Busy { to: NodeId(2) }));
        answering.release.add_permits(1);
    });
    assert_eq!(first, Ok(Bytes::from_static(b"wait")));
    assert_eq!(nodes[0].ask(2, b"x").await, Ok(Bytes::from_static(b"x")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_loses_its_link_and_returns_when_added_again() {
    let mut nodes = linked(&authority(), 2).await;
    let addresses: Vec<_> = nodes.iter().map(|node| (node.id.0, node.address())).collect();
    nodes[1].know(&[]);
    assert_eq!(nodes[1].disconnected_from(1).await, "the node is no longer a member");
    nodes[0].disconnected_from(2).await;
    nodes[0].fault(2, |fault| matches!(fault, LinkFault::Refused(_))).await;
    nodes[1].know(&addresses);
    nodes[0].connected_to(2).await;
    nodes[1].connected_to(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moved_is_found_at_its_new_address() {
    let authority = authority();
    let mut nodes = linked(&authority, 2).await;
    let moved = nodes.remove(1);
    moved.transport.shutdown().await;
    let mut first = nodes.remove(0);
    first.disconnected_from(2).await;
    let peers = BTreeMap::from([(first.id, first.address())]);
    let mut second = Plan { boot: 2, peers, ..Plan::new(&authority, 2) }.start().await;
    first.know(&[(2, second.address())]);
    first.connected_to(2).await;
    second.connected_to(1).await;
    assert_eq!(first.ask(2, b"who").await, Ok(Bytes::from_static(b"n1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_tells_of_every_link_and_frees_the_port() {
    let mut nodes = linked(&authority(), 3).await;
    let address = nodes[0].transport.local_address();
    let mut leaving = nodes.remove(0);
    let (transport, recorder) = (leaving.transport, std::sync::Arc::clone(&leaving.recorder));
    transport.shutdown().await;
    drop(tokio::net::TcpListener::bind(address).await.unwrap());
    drop(recorder);
    leaving.transport = Plan::new(&authority(), 1).start().await.transport;
    for _ in 0..2 {
        assert!(matches!(leaving.next().await, Event::Disconnected(_, why) if why == "this node shuts down"));
    }
    for node in &mut nodes {
        node.disconnected_from(1).await;
    }
}
