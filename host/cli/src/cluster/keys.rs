//! Consensus keys of nodes as files.
//!
//! Relies on the key files of `crypto`. Promises that a node's key is made once and never replaced: whoever
//! issues its certificate again keeps the key under which it is a member of groups. Knows no configuration.

use std::path::{Path, PathBuf};

use anyhow::Result;
use quorate_crypto::SecretKey;

/// Makes the consensus key of a node (`node-1` and so on) unless there is one; where it is.
///
/// # Errors
///
/// The file cannot be made, or the one that is there is no key that only its owner can read.
pub fn consensus_key(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(format!("{name}-consensus.key"));
    if path.try_exists()? {
        SecretKey::read_file(&path)?;
    } else {
        SecretKey::generate()?.create_file(&path)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_one_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = consensus_key(directory.path(), "node-1").unwrap();
        let made = SecretKey::read_file(&path).unwrap().public();
        assert_eq!(consensus_key(directory.path(), "node-1").unwrap(), path);
        assert_eq!(SecretKey::read_file(&path).unwrap().public(), made);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = consensus_key(directory.path(), "node-1").unwrap_err();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
}
