//! A three-node etcd with mutual TLS, and the generator's client of it.
//!
//! Relies on the program `etcd` and on our own certificate authority: the same kind of keys, so TLS costs
//! both sides the same. Promises that its processes end with this one's values. Knows the three fields of
//! etcd's interface that it uses; what is left out of a message is skipped by Protobuf.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use quorate_cli::bench::figures::Process;
use quorate_cli::bench::load::Putter;
use quorate_cli::cluster::{free_ports, random_cluster};
use quorate_transport::TlsFiles;
use quorate_transport::pki::{Authority, Role};
use quorate_types::NodeId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long the cluster may take to elect a leader.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two looks for a leader.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long one put may take before it counts as an error.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 windows as large as our own client's, so that flow control holds back neither side.
const WINDOW_BYTES: u32 = 4 << 20;

/// etcd's `PutRequest`; the fields that are left out have their defaults.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// etcd's `PutResponse`, of which nothing is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// etcd's `StatusRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

/// etcd's `StatusResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// etcd's `ResponseHeader`.
#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// A running etcd cluster; its processes are killed when this is dropped.
pub struct EtcdCluster {
    children: Vec<Child>,
    tls: Arc<ClientConfig>,
    leader: u16,
}

impl EtcdCluster {
    /// Starts as many nodes and waits for a leader.
    pub async fn start(directory: &Path, nodes: u64) -> Result<Self> {
        let pki = directory.join("pki");
        let authority = Authority::create(random_cluster()?)?;
        authority.write_to(&pki)?;
        let client = authority.issue_client("generator", Role::Writer)?.write_to(&pki, "generator")?;
        let ports = free_ports(2 * usize::try_from(nodes)?)?;
        let initial: Vec<_> = ports
            .chunks(2)
            .enumerate()
            .map(|(at, ports)| format!("n{}=https://127.0.0.1:{}", at + 1, ports[1]))
            .collect();
        let initial = initial.join(",");
        let mut children = Vec::new();
        for (id, ports) in (1..=nodes).zip(ports.chunks(2)) {
            let files = authority.issue_node(NodeId(id), &[])?.write_to(&pki, &format!("node-{id}"))?;
            children.push(spawn(directory, id, (ports[0], ports[1]), &initial, &files)?);
        }
        let tls = client_tls(&client)?;
        let clients: Vec<_> = ports.chunks(2).map(|ports| ports[0]).collect();
        let leader = tokio::time::timeout(START_TIMEOUT, find_leader(&clients, &tls)).await;
        let leader = leader.with_context(|| {
            format!("etcd elected no leader in {} s; see {}", START_TIMEOUT.as_secs(), directory.display())
        })?;
        Ok(Self { children, tls, leader })
    }

    /// Clients that share connections to the leader, where a put takes the shortest way.
    pub async fn clients(&self, count: usize, connections: usize) -> Result<Vec<EtcdClient>> {
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections {
            channels.push(connect(self.leader, &self.tls).await?);
        }
        Ok((0..count).map(|at| EtcdClient { channel: channels[at % connections].clone() }).collect())
    }

    /// Its processes.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let pids = self.children.iter().filter_map(Child::id);
        pids.enumerate().map(|(at, pid)| Process::new(format!("etcd {}", at + 1), pid)).collect()
    }
}

fn spawn(directory: &Path, id: u64, ports: (u16, u16), initial: &str, files: &TlsFiles) -> Result<Child> {
    let data = directory.join(format!("etcd-{id}"));
    fs::create_dir_all(&data)?;
    let log = File::create(directory.join(format!("etcd-{id}.log")))?;
    let client_url = format!("https://127.0.0.1:{}", ports.0);
    let peer_url = format!("https://127.0.0.1:{}", ports.1);
    let mut command = Command::new("etcd");
    command.arg("--name").arg(format!("n{id}")).arg("--data-dir").arg(&data);
    command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
    command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
    command.args(["--initial-cluster", initial, "--initial-cluster-state", "new"]);
    command.args(["--logger", "zap", "--log-level", "error"]);
    // Room for every revision of a long measurement.
    command.args(["--quota-backend-bytes", "8589934592"]);
    for prefix in ["--", "--peer-"] {
        command.arg(format!("{prefix}cert-file")).arg(&files.certificate);
        command.arg(format!("{prefix}key-file")).arg(&files.key);
        command.arg(format!("{prefix}trusted-ca-file")).arg(&files.authority);
        command.arg(format!("{prefix}client-cert-auth"));
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    command.spawn().context("etcd cannot be started; install it with `apt-get install etcd-server`")
}

/// The client port of the node that leads.
async fn find_leader(ports: &[u16], tls: &Arc<ClientConfig>) -> u16 {
    loop {
        for port in ports {
            if is_leader(*port, tls).await.unwrap_or(false) {
                return *port;
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

async fn is_leader(port: u16, tls: &Arc<ClientConfig>) -> Result<bool> {
    let channel = connect(port, tls).await?;
    let path = "/etcdserverpb.Maintenance/Status";
    let status: StatusResponse = unary(channel, path, StatusRequest {}).await?;
    Ok(status.header.is_some_and(|header| header.member_id != 0 && header.member_id == status.leader))
}

fn client_tls(files: &TlsFiles) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.authority)?)?;
    let certificate = CertificateDer::from_pem_file(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

async fn connect(port: u16, tls: &Arc<ClientConfig>) -> Result<Channel> {
    let tls = TlsConnector::from(Arc::clone(tls));
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
            std::io::Result::Ok(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    // The connector does TLS itself, so the address says plain HTTP.
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    let endpoint =
        endpoint.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    Ok(endpoint.timeout(PUT_TIMEOUT).connect_with_connector(connector).await?)
}

async fn unary<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<A>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| anyhow::anyhow!("the connection is lost: {error}"))?;
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    match grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => bail!("etcd refused: {status}"),
    }
}

/// One client of the generator.
#[derive(Clone, Debug)]
pub struct EtcdClient {
    channel: Channel,
}

impl Putter for EtcdClient {
    async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let request =
            PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value) };
        let _: PutResponse = unary(self.channel.clone(), "/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }
}
