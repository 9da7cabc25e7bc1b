//! `quorate pki`: certificates and keys of a cluster.
//!
//! Relies on the transport's certificate authority. Promises that keys are readable for their owner only,
//! and that neither an authority nor a consensus key is ever overwritten. Knows no node.

use std::path::Path;

use anyhow::Result;
use quorate_transport::TlsFiles;
use quorate_transport::pki::Authority;
use quorate_types::NodeId;
use serde_json::json;

use crate::arguments::PkiCommand;
use crate::cluster::{consensus_key, random_cluster};
use crate::output::{Output, pairs};

/// Runs the command.
pub fn run(command: PkiCommand, output: Output) -> Result<()> {
    match command {
        PkiCommand::Init { dir } => {
            let authority = Authority::create(random_cluster()?)?;
            authority.write_to(&dir)?;
            let cluster = authority.cluster().to_string();
            output.show(&json!({ "cluster": cluster, "directory": dir }), || {
                format!(
                    "cluster.id = \"{cluster}\"\nThe authority is in {}; its key stays with you.",
                    dir.display()
                )
            })
        }
        PkiCommand::Node { id, host, dir } => {
            let files = Authority::load(&dir)?.issue_node(NodeId(id), &host)?;
            let name = format!("node-{id}");
            let files = files.write_to(&dir, &name)?;
            show(&files, Some(&consensus_key(&dir, &name)?), &dir, output)
        }
        PkiCommand::Client { name, role, dir } => {
            let files = Authority::load(&dir)?.issue_client(&name, role)?;
            show(&files.write_to(&dir, &name)?, None, &dir, output)
        }
    }
}

fn show(files: &TlsFiles, consensus_key: Option<&Path>, directory: &Path, output: Output) -> Result<()> {
    let value = json!({
        "ca": files.authority, "cert": files.certificate, "key": files.key, "directory": directory,
        "consensus_key": consensus_key,
    });
    output.show(&value, || {
        let mut lines = vec![
            ("ca", files.authority.display().to_string()),
            ("cert", files.certificate.display().to_string()),
            ("key", files.key.display().to_string()),
        ];
        lines.extend(consensus_key.map(|path| ("consensus key", path.display().to_string())));
        pairs(&lines)
    })
}
