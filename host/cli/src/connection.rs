//! Which cluster a command speaks with, and as whom.
//!
//! Relies on the client library. Promises the order flags, `--context` or `QUORATE_CONTEXT`, then the
//! context of `quorate dev` in the current directory, and an error that says how to name a cluster. Knows
//! no command.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_client::{Client, ClientConfig, TlsConfig};
use serde::{Deserialize, Serialize};

use crate::arguments::ConnectionArguments;
use crate::exit::Fault;

/// The context that commands use when none is named.
pub const DEFAULT_CONTEXT: &str = ".quorate/dev.json";

/// A cluster as a client sees it; a context file holds one as JSON. Paths in a file are relative to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Addresses of nodes for clients, as `host:port`.
    pub endpoints: Vec<String>,
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// The client's certificate.
    pub cert: PathBuf,
    /// The client's key.
    pub key: PathBuf,
}

impl Context {
    /// What the arguments name, with the default context for what they leave out.
    ///
    /// # Errors
    ///
    /// Wrong usage: no cluster is named, or the context cannot be read.
    pub fn resolve(arguments: &ConnectionArguments) -> Result<Self> {
        if let (false, Some(ca), Some(cert), Some(key)) =
            (arguments.endpoint.is_empty(), &arguments.ca, &arguments.cert, &arguments.key)
        {
            let endpoints = arguments.endpoint.clone();
            return Ok(Self { endpoints, ca: ca.clone(), cert: cert.clone(), key: key.clone() });
        }
        let file = arguments.context.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONTEXT));
        if arguments.context.is_none() && !file.exists() {
            return Err(Fault::usage(format!(
                "no cluster is named: start one with `quorate dev`, name one with --context FILE or \
                 QUORATE_CONTEXT, or give --endpoint, --ca, --cert and --key ({} does not exist)",
                file.display()
            )));
        }
        let context = Self::load(&file)?;
        let endpoints = &arguments.endpoint;
        Ok(Self {
            endpoints: if endpoints.is_empty() { context.endpoints } else { endpoints.clone() },
            ca: arguments.ca.clone().unwrap_or(context.ca),
            cert: arguments.cert.clone().unwrap_or(context.cert),
            key: arguments.key.clone().unwrap_or(context.key),
        })
    }

    /// Reads a context file.
    ///
    /// # Errors
    ///
    /// Wrong usage: the file is not there, or is not a context.
    pub fn load(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(|error| {
            Fault::usage(format!("the context {} cannot be read: {error}", file.display()))
        })?;
        let mut context: Self = serde_json::from_str(&text)
            .map_err(|error| Fault::usage(format!("{} is not a context: {error}", file.display())))?;
        let directory = file.parent().unwrap_or(Path::new(""));
        for path in [&mut context.ca, &mut context.cert, &mut context.key] {
            *path = directory.join(&path);
        }
        Ok(context)
    }

    /// Writes a context file. Relative paths are kept: they count from the file.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let text = serde_json::to_string_pretty(self).context("a context has a JSON form")?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }

    /// The client's configuration; the certificates are read.
    ///
    /// # Errors
    ///
    /// A certificate or key cannot be read.
    pub fn client_config(&self) -> Result<ClientConfig> {
        let tls = TlsConfig::from_files(&self.ca, &self.cert, &self.key)?;
        Ok(ClientConfig::new(self.endpoints.clone(), tls))
    }

    /// The same client, speaking with one node only.
    #[must_use]
    pub fn at(&self, endpoint: &str) -> Self {
        Self { endpoints: vec![endpoint.to_owned()], ..self.clone() }
    }

    /// Connects with default settings and this deadline for each call.
    ///
    /// # Errors
    ///
    /// No node can be reached, or the certificates cannot be used.
    pub async fn connect(&self, deadline: Duration) -> Result<Client> {
        let mut config = self.client_config()?;
        config.deadline = deadline;
        Ok(Client::connect(config).await?)
    }
}

/// Connects as the arguments say.
///
/// # Errors
///
/// As [`Context::resolve`] and [`Context::connect`].
pub async fn connect(arguments: &ConnectionArguments) -> Result<Client> {
    Context::resolve(arguments)?.connect(deadline(arguments)).await
}

/// How long each call may take.
#[must_use]
pub fn deadline(arguments: &ConnectionArguments) -> Duration {
    // At least a second, so that `--timeout 0` is not an impossible demand.
    Duration::from_secs(arguments.timeout.max(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::exit::{Kind, kind};

    fn context() -> Context {
        Context { endpoints: vec!["a:1".into()], ca: "ca.pem".into(), cert: "c.pem".into(), key: "/k".into() }
    }

    #[test]
    fn paths_in_a_file_count_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("deep/dev.json");
        context().write(&file).unwrap();
        let loaded = Context::load(&file).unwrap();
        assert_eq!(loaded.ca, directory.path().join("deep/ca.pem"));
        assert_eq!(loaded.key, PathBuf::from("/k"));
    }

    #[test]
    fn flags_override_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dev.json");
        context().write(&file).unwrap();
        let arguments = ConnectionArguments {
            endpoint: vec!["b:2".into()],
            context: Some(file),
            ..ConnectionArguments::default()
        };
        let resolved = Context::resolve(&arguments).unwrap();
        assert_eq!(resolved.endpoints, ["b:2"]);
        assert_eq!(resolved.cert, directory.path().join("c.pem"));
    }

    #[test]
    fn a_missing_or_odd_context_is_wrong_usage() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("none.json");
        assert_eq!(kind(&Context::load(&file).unwrap_err()), Kind::Usage);
        fs::write(&file, r#"{"endpoint":"a:1"}"#).unwrap();
        let error = Context::load(&file).unwrap_err();
        assert!(error.to_string().contains("not a context"), "{error}");
    }
}
