//! Free ports of the loopback interface.
//!
//! Relies on the system to say which ports it gives to outgoing connections. Promises ports outside that
//! range: a node that restarts finds its port free even if clients kept trying to reach it meanwhile.
//! Knows nothing of what listens there.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Ports below this one belong to well-known services.
const PORT_MIN: u16 = 10_000;
/// Where outgoing connections begin if the system does not say.
const EPHEMERAL_MIN_DEFAULT: u16 = 32_768;
/// How often to look for a free port before giving up.
const ATTEMPTS_MAX: usize = 10_000;

/// As many different free ports.
///
/// # Errors
///
/// There are not as many.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let range = u64::from(ephemeral_min().saturating_sub(PORT_MIN).max(1));
    // Kept open until all are found, so that no port is found twice.
    let mut held = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        if ports.len() == count {
            break;
        }
        let offset = u16::try_from(RandomState::new().build_hasher().finish() % range).unwrap_or_default();
        let port = PORT_MIN + offset;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
            ports.push(port);
        }
    }
    if ports.len() < count {
        bail!("only {} of {count} ports are free on this machine: end other servers", ports.len());
    }
    Ok(ports)
}

/// The first port that the system gives to outgoing connections.
fn ephemeral_min() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    first.filter(|first| *first > PORT_MIN).unwrap_or(EPHEMERAL_MIN_DEFAULT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_free_different_and_never_given_to_outgoing_connections() {
        let ports = free(8).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 8);
        for port in ports {
            assert!((PORT_MIN..ephemeral_min()).contains(&port), "{port}");
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "{port} is taken");
        }
    }
}
