//! The client: what all its groups and sessions share.
//!
//! Relies on nodes and routes. Promises that every part of a process that holds a clone shares
//! connections and what is known of leaders. Knows no session.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quorate_proto::v1::client_client::ClientClient;
use quorate_proto::v1::{ErrorCode, GroupInfo, ResolveRequest, resolve_request};

use quorate_types::{BYZANTINE_REPLICAS_MIN, byzantine_faults};

use crate::admin::Admin;
use crate::agreement;
use crate::calls::{Patience, Scope, call};
use crate::config::{ClientConfig, ENDPOINTS_MAX, is_address};
use crate::error::Error;
use crate::group::Group;
use crate::jitter::{Jitter, random_bytes};
use crate::lane::{self, Lane};
use crate::node::Node;
use crate::route::Route;
use crate::tls::{Dialer, Peer};

/// A client of one cluster. Clones are cheap and share everything.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

/// What clones share.
pub(crate) struct Inner {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) jitter: Jitter,
    dialer: Arc<Dialer>,
    /// At most [`NODES_MAX`].
    nodes: Mutex<BTreeMap<Peer, Arc<Node>>>,
    /// By group id.
    routes: Mutex<BTreeMap<u64, Arc<Route>>>,
    /// By group id, of groups whose replicas may lie.
    lanes: Mutex<BTreeMap<u64, Arc<Lane>>>,
    /// The slot of the next session.
    next_slot: AtomicUsize,
    /// The endpoint that is asked first.
    preferred: AtomicUsize,
}

/// The most nodes a client remembers; addresses that nodes name beyond that are ignored.
const NODES_MAX: usize = 2 * ENDPOINTS_MAX;

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Client {
    /// Checks the configuration and asks the cluster for a sign of life. Must run within tokio.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Tls`] when certificates do not belong together, [`Error::Unreachable`]
    /// when no node answers within the deadline.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        config.validate()?;
        let dialer = Arc::new(Dialer::new(&config.security)?);
        let seed = u64::from_le_bytes(random_bytes()?);
        let inner = Inner {
            jitter: Jitter::new(seed, config.retry_delay_min, config.retry_delay_max),
            config: Arc::new(config),
            dialer,
            nodes: Mutex::default(),
            routes: Mutex::default(),
            lanes: Mutex::default(),
            next_slot: AtomicUsize::new(0),
            preferred: AtomicUsize::new(0),
        };
        let client = Self { inner: Arc::new(inner) };
        match client.resolve(resolve_request::Group::Id(0)).await {
            // Any answer is a sign of life; whether it may ask more, a later call will tell.
            Ok(_) | Err(Error::Refused { .. }) => Ok(client),
            Err(Error::DeadlineExceeded { waited_ms, reason, .. }) => {
                Err(Error::Unreachable { tried: client.inner.config.endpoints.join(", "), waited_ms, reason })
            }
            Err(error) => Err(error),
        }
    }

    /// Another clone of it.
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Finds a group by its name.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with `UNKNOWN_GROUP`, or that no node answered. For a group whose replicas may lie,
    /// [`Error::Config`] if this client names fewer than four endpoints or its key cannot sign.
    pub async fn group(&self, name: &str) -> Result<Group, Error> {
        self.find(resolve_request::Group::Name(name.to_owned())).await
    }

    /// Finds a group by its id.
    ///
    /// # Errors
    ///
    /// As [`Client::group`].
    pub async fn group_by_id(&self, id: u64) -> Result<Group, Error> {
        self.find(resolve_request::Group::Id(id)).await
    }

    /// What some node knows of a group, by its name.
    ///
    /// # Errors
    ///
    /// As [`Client::group`].
    pub async fn describe(&self, name: &str) -> Result<GroupInfo, Error> {
        self.resolve(resolve_request::Group::Name(name.to_owned())).await
    }

    /// The calls of operators, answered by whichever node can.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.inner), Scope::Anybody)
    }

    /// The calls of operators, answered by the node at this address, `host:port`, and no other.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when it is not an address.
    pub fn admin_at(&self, address: &str) -> Result<Admin, Error> {
        if !is_address(address) {
            return Err(Error::Config { reason: format!("{address:?} is not of the form host:port") });
        }
        Ok(Admin::new(Arc::clone(&self.inner), Scope::Only(address.to_owned())))
    }

    async fn resolve(&self, group: resolve_request::Group) -> Result<GroupInfo, Error> {
        let config = &self.inner.config;
        let patience = Patience::new(config.deadline, config.attempt_timeout);
        let request = ResolveRequest { group: Some(group) };
        call(&self.inner, &Scope::Anybody, patience, |channel| {
            let request = request.clone();
            async move { ClientClient::new(channel).resolve(request).await }
        })
        .await
    }

    /// Finds a group. Who is told falsely what a group is, and who its members are, believes liars from then on: with
    /// 3f + 1 endpoints, f + 1 of them must say the same.
    pub(crate) async fn find(&self, group: resolve_request::Group) -> Result<Group, Error> {
        let may_lie_max = byzantine_faults(self.inner.config.endpoints.len());
        if may_lie_max > 0 {
            return self.adopt(&agreement::agree(&self.inner, group, may_lie_max + 1).await?);
        }
        let info = self.resolve(group).await?;
        if lane::may_lie(&info) {
            let reason = format!(
                "replicas of group {:?} may lie, which this client could not tell: name at least \
                 {BYZANTINE_REPLICAS_MIN} nodes in endpoints",
                info.name
            );
            return Err(Error::Config { reason });
        }
        self.adopt(&info)
    }

    fn adopt(&self, info: &GroupInfo) -> Result<Group, Error> {
        let lane = if lane::may_lie(info) { Some(self.inner.lane(info)?) } else { None };
        let route = self.inner.route(info.id);
        route.learn(&self.inner, info);
        Ok(Group::new(Arc::clone(&self.inner), route, lane, info.id, info.name.clone()))
    }
}

impl Inner {
    /// The node at an address; none if it is no address, or too many are known.
    pub(crate) fn node(&self, address: &str) -> Option<Arc<Node>> {
        self.node_as(Peer { address: address.to_owned(), name: None })
    }

    /// The node at an address that must show a certificate with this name.
    pub(crate) fn member(&self, address: &str, name: &str) -> Option<Arc<Node>> {
        self.node_as(Peer { address: address.to_owned(), name: Some(name.to_owned()) })
    }

    fn node_as(&self, peer: Peer) -> Option<Arc<Node>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(&peer) {
            return Some(Arc::clone(node));
        }
        if !is_address(&peer.address) || nodes.len() >= NODES_MAX {
            return None;
        }
        let node = Arc::new(Node::new(peer.clone(), Arc::clone(&self.dialer), Arc::clone(&self.config)));
        nodes.insert(peer, Arc::clone(&node));
        Some(node)
    }

    /// The lane of a group; its members do not change while this client lives.
    fn lane(&self, info: &GroupInfo) -> Result<Arc<Lane>, Error> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&info.id) {
            return Ok(Arc::clone(lane));
        }
        let lane = Lane::open(self, info)?;
        lanes.insert(info.id, Arc::clone(&lane));
        Ok(lane)
    }

    /// The slot of a new session: sessions are spread evenly over connections.
    pub(crate) fn next_slot(&self) -> usize {
        self.next_slot.fetch_add(1, Ordering::Relaxed) % self.config.connections
    }

    pub(crate) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    pub(crate) fn prefer(&self, endpoint: usize) {
        self.preferred.store(endpoint % self.config.endpoints.len(), Ordering::Relaxed);
    }

    fn route(&self, group: u64) -> Arc<Route> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(group).or_insert_with(|| Arc::new(Route::new(group))))
    }
}

/// Whether an error says that there is no such group.
pub(crate) fn is_unknown_group(error: &Error) -> bool {
    error.code() == Some(ErrorCode::UnknownGroup)
}
