//! What a client is told at its start.
//!
//! Relies on nothing. Promises that a configuration which passed validation has addresses, and bounds in
//! their ranges. Opens nothing.

use std::time::Duration;

use crate::error::Error;
use crate::tls::{ClientIdentity, TlsConfig};

/// The most connections to one node.
pub const CONNECTIONS_MAX: usize = 4_096;
/// The most addresses of one client; more than a cluster has nodes.
pub(crate) const ENDPOINTS_MAX: usize = 1_024;

/// How connections are protected.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    /// Mutual TLS 1.3.
    Tls(TlsConfig),
    /// None, over a network in the memory of a test.
    #[cfg(test)]
    Memory(crate::tests::network::Network),
}

impl Security {
    /// With what this client signs.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a key of another kind.
    pub(crate) fn identity(&self) -> Result<ClientIdentity, Error> {
        match self {
            Self::Tls(tls) => tls.identity(),
            #[cfg(test)]
            Self::Memory(_) => Ok(ClientIdentity {
                secret: quorate_crypto::SecretKey::from_seed(&[7; 32]),
                certificate: bytes::Bytes::from_static(b"certificate"),
            }),
        }
    }
}

/// All settings of a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where nodes are found, each as `host:port`, no node twice. One is enough to find the others; several survive
    /// the loss of one. For groups whose replicas may lie name at least four: what a group is and who its members are
    /// is believed only if f + 1 of n >= 3f + 1 endpoints say the same.
    pub endpoints: Vec<String>,
    pub(crate) security: Security,
    /// Connections to each node, from 1 to [`CONNECTIONS_MAX`]; sessions are spread over them. Each may need a
    /// second one for what is not a command: queries, watching, administration. Default 1.
    pub connections: usize,
    /// How long a command, query or call may take, retries included, unless told otherwise at the call.
    /// At least one millisecond. Default 10 s.
    pub deadline: Duration,
    /// How long one sending may stay unanswered before the client looks for the leader anew and sends
    /// again; doubles with every silent sending of a command. At least one millisecond. Default 1 s.
    pub attempt_timeout: Duration,
    /// How long opening a connection may take, TLS included. At least one millisecond. Default 1 s.
    pub connect_timeout: Duration,
    /// The shortest wait before something is tried again. At least one millisecond. Default 5 ms.
    pub retry_delay_min: Duration,
    /// The longest wait before something is tried again; at least the shortest. Default 250 ms.
    pub retry_delay_max: Duration,
    /// Commands without answer on one connection; more wait. At least 1. Default 65,536.
    pub in_flight_max: usize,
    /// Bytes that wait to be written to one connection; more wait. At least 4 MiB. Default 64 MiB.
    pub queued_bytes_max: usize,
}

impl ClientConfig {
    /// The default settings for these nodes.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>, tls: TlsConfig) -> Self {
        Self::with(endpoints.into_iter().map(Into::into).collect(), Security::Tls(tls))
    }

    /// Over a network in the memory of a test.
    #[cfg(test)]
    pub(crate) fn in_memory(endpoints: Vec<String>, network: crate::tests::network::Network) -> Self {
        Self::with(endpoints, Security::Memory(network))
    }

    fn with(endpoints: Vec<String>, security: Security) -> Self {
        Self {
            endpoints,
            security,
            connections: 1,
            deadline: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            retry_delay_min: Duration::from_millis(5),
            retry_delay_max: Duration::from_millis(250),
            in_flight_max: 65_536,
            queued_bytes_max: 64 << 20,
        }
    }

    /// Checks every setting.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::Config { reason });
        if self.endpoints.is_empty() {
            return wrong("endpoints is empty; name at least one node as host:port".to_owned());
        }
        if self.endpoints.len() > ENDPOINTS_MAX {
            return wrong(format!(
                "endpoints has {} addresses; at most {ENDPOINTS_MAX}",
                self.endpoints.len()
            ));
        }
        if let Some(bad) = self.endpoints.iter().find(|address| !is_address(address)) {
            return wrong(format!("endpoint {bad:?} is not of the form host:port"));
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return wrong(format!("connections is {}; choose 1 to {CONNECTIONS_MAX}", self.connections));
        }
        let durations = [
            ("deadline", self.deadline),
            ("attempt_timeout", self.attempt_timeout),
            ("connect_timeout", self.connect_timeout),
            ("retry_delay_min", self.retry_delay_min),
        ];
        if let Some((name, short)) = durations.iter().find(|(_, value)| *value < Duration::from_millis(1)) {
            return wrong(format!("{name} is {short:?}; choose at least 1 ms"));
        }
        if self.retry_delay_max < self.retry_delay_min {
            return wrong("retry_delay_max is below retry_delay_min".to_owned());
        }
        if self.in_flight_max == 0 || u32::try_from(self.in_flight_max).is_err() {
            return wrong(format!("in_flight_max is {}; choose 1 to {}", self.in_flight_max, u32::MAX));
        }
        if self.queued_bytes_max < 4 << 20 {
            return wrong(format!("queued_bytes_max is {}; choose at least 4 MiB", self.queued_bytes_max));
        }
        Ok(())
    }
}

/// Whether a text names a host and a port, such as `localhost:7101` or `[::1]:7101`.
pub(crate) fn is_address(text: &str) -> bool {
    host_of(text).is_some_and(|host| !host.is_empty())
        && text.parse::<tonic::codegen::http::uri::Authority>().is_ok()
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub(crate) fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    Some(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_host_and_a_port() {
        for good in ["localhost:7101", "127.0.0.1:1", "[::1]:7101", "node-1.example.org:65535"] {
            assert!(is_address(good), "{good}");
        }
        for bad in
            ["", "localhost", ":7101", "localhost:", "localhost:70000", "http://localhost:7101", "a b:1"]
        {
            assert!(!is_address(bad), "{bad}");
        }
        assert_eq!(host_of("[::1]:7101"), Some("::1"));
    }

    #[test]
    fn settings_outside_their_range_are_named() {
        let good = || ClientConfig::in_memory(vec!["localhost:7101".to_owned()], Default::default());
        assert_eq!(good().validate(), Ok(()));
        let named = |config: ClientConfig, name: &str| match config.validate() {
            Err(Error::Config { reason }) => assert!(reason.contains(name), "{reason}"),
            other => panic!("{name}: {other:?}"),
        };
        named(ClientConfig { endpoints: Vec::new(), ..good() }, "endpoints");
        named(ClientConfig { endpoints: vec!["localhost".into()], ..good() }, "host:port");
        named(ClientConfig { connections: 0, ..good() }, "connections");
        named(ClientConfig { deadline: Duration::ZERO, ..good() }, "deadline");
        named(ClientConfig { retry_delay_max: Duration::ZERO, ..good() }, "retry_delay_max");
        named(ClientConfig { in_flight_max: 0, ..good() }, "in_flight_max");
        named(ClientConfig { queued_bytes_max: 1, ..good() }, "queued_bytes_max");
    }
}
