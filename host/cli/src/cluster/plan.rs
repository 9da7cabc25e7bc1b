//! What a cluster on one machine is made of: certificates, configurations, a client's context.
//!
//! Relies on the PKI of the transport and on the node's configuration. Promises that opening the same
//! directory again gives the same cluster, with the same identities and ports. Starts nothing.
//!
//! ```text
//! directory/
//!   plan.json            ports and identity, written last: its presence says that all is there
//!   pki/                 ca, node-N and admin, each with its key; node-N's consensus key
//!   node-N.toml          configuration of node N
//!   node-N/              its data
//!   context.json         for clients
//! ```

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use quorate_node::{ClusterNode, NodeConfig};
use quorate_transport::TlsFiles;
use quorate_transport::pki::{Authority, Role};
use quorate_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use super::{consensus_key, ports};
use crate::connection::Context;

const PLAN_FILE: &str = "plan.json";
const CONTEXT_FILE: &str = "context.json";
const PKI_DIRECTORY: &str = "pki";
const ADMIN: &str = "admin";

/// A cluster that can be started in one directory.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    /// Where everything lies.
    pub directory: PathBuf,
    /// Its nodes, by number.
    pub nodes: Vec<PlannedNode>,
    /// How an administrator reaches it.
    pub context: Context,
}

/// One node of a plan.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// Its number, from 1.
    pub id: u64,
    /// Where clients reach it.
    pub api: SocketAddr,
    /// Where other nodes reach it.
    pub peer: SocketAddr,
    /// Its configuration file.
    pub config: PathBuf,
}

/// What is kept of a plan between runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    cluster: String,
    nodes: Vec<KeptNode>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptNode {
    id: u64,
    api: u16,
    peer: u16,
}

impl ClusterPlan {
    /// The cluster in this directory, made if there is none yet.
    ///
    /// # Errors
    ///
    /// The directory holds a cluster of another size, or cannot be used.
    pub fn open_or_create(directory: &Path, nodes: u64) -> Result<Self> {
        if !directory.join(PLAN_FILE).exists() {
            return Self::create(directory, nodes);
        }
        let plan = Self::open(directory)?;
        if plan.nodes.len() as u64 != nodes {
            bail!(
                "{} holds a cluster of {} nodes: ask for as many, or choose another directory",
                directory.display(),
                plan.nodes.len()
            );
        }
        Ok(plan)
    }

    /// Makes certificates and configurations for a new cluster.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, or no ports are free.
    pub fn create(directory: &Path, nodes: u64) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let directory = directory.canonicalize()?;
        let cluster = random_cluster()?;
        let authority = Authority::create(cluster)?;
        let pki = directory.join(PKI_DIRECTORY);
        authority.write_to(&pki)?;
        authority.issue_client(ADMIN, Role::Admin)?.write_to(&pki, ADMIN)?;
        let ports = ports::free(2 * usize::try_from(nodes)?)?;
        let kept: Vec<_> = (1..=nodes)
            .zip(ports.chunks(2))
            .map(|(id, ports)| KeptNode { id, api: ports[0], peer: ports[1] })
            .collect();
        let kept = Kept { cluster: cluster.to_string(), nodes: kept };
        for node in &kept.nodes {
            authority.issue_node(NodeId(node.id), &[])?.write_to(&pki, &node_name(node.id))?;
            let mut config = node_config(&directory, &kept, node);
            config.node.consensus_key = consensus_key(&pki, &node_name(node.id))?;
            let text = toml::to_string(&config)?;
            fs::write(config_file(&directory, node.id), text)?;
        }
        let plan = Self::of(directory, &kept);
        plan.context.write(&plan.directory.join(CONTEXT_FILE))?;
        fs::write(plan.directory.join(PLAN_FILE), serde_json::to_string_pretty(&kept)?)?;
        Ok(plan)
    }

    /// The cluster that was made in this directory.
    ///
    /// # Errors
    ///
    /// There is none, or its plan is damaged.
    pub fn open(directory: &Path) -> Result<Self> {
        let file = directory.join(PLAN_FILE);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let kept = serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
        Ok(Self::of(directory.canonicalize()?, &kept))
    }

    /// Where the context for clients was written.
    #[must_use]
    pub fn context_file(&self) -> PathBuf {
        self.directory.join(CONTEXT_FILE)
    }

    fn of(directory: PathBuf, kept: &Kept) -> Self {
        let pki = TlsFiles::named(&directory.join(PKI_DIRECTORY), ADMIN);
        let nodes: Vec<_> = kept
            .nodes
            .iter()
            .map(|node| PlannedNode {
                id: node.id,
                api: loopback(node.api),
                peer: loopback(node.peer),
                config: config_file(&directory, node.id),
            })
            .collect();
        let endpoints = nodes.iter().map(|node| node.api.to_string()).collect();
        let context = Context { endpoints, ca: pki.authority, cert: pki.certificate, key: pki.key };
        Self { directory, nodes, context }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn node_name(id: u64) -> String {
    format!("node-{id}")
}

fn config_file(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{}.toml", node_name(id)))
}

fn node_config(directory: &Path, kept: &Kept, node: &KeptNode) -> NodeConfig {
    let mut config = NodeConfig::default();
    config.node.id = node.id;
    config.node.data = directory.join(node_name(node.id));
    config.listen.api = loopback(node.api);
    config.listen.peer = loopback(node.peer);
    config.cluster.id.clone_from(&kept.cluster);
    config.cluster.nodes = kept
        .nodes
        .iter()
        .map(|node| ClusterNode {
            id: node.id,
            peer: loopback(node.peer).to_string(),
            api: loopback(node.api).to_string(),
        })
        .collect();
    let files = TlsFiles::named(&directory.join(PKI_DIRECTORY), &node_name(node.id));
    config.tls.ca = files.authority;
    config.tls.cert = files.certificate;
    config.tls.key = files.key;
    config
}

/// A cluster's identity, drawn from the system's source of randomness.
///
/// # Errors
///
/// The source cannot be read.
pub fn random_cluster() -> Result<ClusterId> {
    let mut bytes = [0; 16];
    let mut source = fs::File::open("/dev/urandom").context("this system has no /dev/urandom")?;
    source.read_exact(&mut bytes).context("/dev/urandom cannot be read")?;
    Ok(ClusterId(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_configuration_is_valid_and_names_the_same_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let plan = ClusterPlan::create(directory.path(), 3).unwrap();
        let load = |node: &PlannedNode| NodeConfig::load(Some(&node.config), serde_json::json!({})).unwrap();
        let configs: Vec<_> = plan.nodes.iter().map(load).collect();
        assert_eq!(configs.iter().map(|config| config.node.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(configs.iter().all(|config| config.genesis() == configs[0].genesis()));
        assert!(plan.context.client_config().is_ok());
    }

    #[test]
    fn opening_again_gives_the_same_cluster_and_another_size_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let made = ClusterPlan::open_or_create(directory.path(), 3).unwrap();
        let opened = ClusterPlan::open_or_create(directory.path(), 3).unwrap();
        assert_eq!(made.context, opened.context);
        let error = ClusterPlan::open_or_create(directory.path(), 5).unwrap_err();
        assert!(error.to_string().contains("3 nodes"), "{error}");
    }

    #[test]
    fn two_clusters_differ() {
        assert_ne!(random_cluster().unwrap(), random_cluster().unwrap());
    }
}
