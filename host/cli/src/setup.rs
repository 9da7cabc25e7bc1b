//! Groups and components as several commands need them: found, created, published, deployed.
//!
//! Relies on the client library. Promises that each step may be repeated. Knows no output.

use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use quorate_client::proto::{ComponentRef, CreateGroupRequest, DeployReply, PushComponentReply};
use quorate_client::{Client, Group};
use quorate_types::Digest;

use crate::arguments::Protocol;
use crate::exit::Fault;

/// Finds a group by its name or number; names begin with a letter.
///
/// # Errors
///
/// There is no such group, or no node answers.
pub async fn find_group(client: &Client, group: &str) -> Result<Group> {
    let found = match group.parse::<u64>() {
        Ok(id) => client.group_by_id(id).await,
        Err(_) => client.group(group).await,
    };
    Ok(found?)
}

/// Reads a component's file.
///
/// # Errors
///
/// Wrong usage: the file cannot be read.
pub fn read_component(file: &Path) -> Result<Bytes> {
    let bytes = std::fs::read(file)
        .map_err(|error| Fault::usage(format!("the component {} cannot be read: {error}", file.display())))?;
    Ok(bytes.into())
}

/// Publishes a component.
///
/// # Errors
///
/// The file cannot be read, or the component is refused.
pub async fn push(client: &Client, file: &Path) -> Result<PushComponentReply> {
    let bytes = read_component(file)?;
    let pushed = client.admin().push_component(bytes).await;
    pushed.with_context(|| format!("{} was not published", file.display()))
}

/// Deploys a component by its digest, `name@version` or name.
///
/// # Errors
///
/// There is no such group or component, or the component refuses.
pub async fn deploy(client: &Client, group: &str, component: &str, parameters: Bytes) -> Result<DeployReply> {
    let group = find_group(client, group).await?;
    let admin = client.admin();
    let deployed = match component.parse::<Digest>() {
        Ok(digest) => admin.deploy_digest(group.name(), digest.0, parameters).await,
        Err(_) => admin.deploy(group.name(), component, parameters).await,
    };
    deployed.with_context(|| format!("{component} was not deployed to {}", group.name()))
}

/// A group with every node of the cluster as its member and this component active.
///
/// # Errors
///
/// A step is refused.
pub async fn prepare(client: &Client, group: &str, protocol: Protocol, component: &Path) -> Result<()> {
    let protocol = quorate_client::proto::Protocol::from(protocol).into();
    let request = CreateGroupRequest { name: group.to_owned(), protocol, ..CreateGroupRequest::default() };
    client.admin().create_group(request).await.with_context(|| format!("group {group} was not created"))?;
    let pushed = push(client, component).await?;
    let component = pushed.component.and_then(|descriptor| descriptor.component);
    let component = component.context("the node did not say which component it published")?;
    deploy(client, group, &digest_text(&component), Bytes::new()).await?;
    Ok(())
}

/// The digest of a component as text.
#[must_use]
pub fn digest_text(component: &ComponentRef) -> String {
    hex(&component.digest)
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_in_the_form_in_which_it_is_read() {
        let digest = Digest([0xab; 32]);
        assert_eq!(hex(&digest.0).parse(), Ok(digest));
    }
}
