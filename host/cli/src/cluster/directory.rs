//! Directories for clusters that do not last.
//!
//! Relies on the file system. Promises that a directory which nobody asked to keep is gone at the end.
//! Knows nothing of what lies in it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A directory that is removed at the end, unless it is to be kept.
#[derive(Debug)]
pub struct WorkDirectory {
    path: PathBuf,
    kept: bool,
}

impl WorkDirectory {
    /// A given directory, which is kept, or a new one in the system's temporary one, which is not.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn new(given: Option<&Path>, purpose: &str) -> Result<Self> {
        let Some(given) = given else { return Self::below(&std::env::temp_dir(), purpose) };
        std::fs::create_dir_all(given).with_context(|| format!("cannot make {}", given.display()))?;
        Ok(Self { path: given.to_owned(), kept: true })
    }

    /// A new directory in a given one, which is not kept.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn below(parent: &Path, purpose: &str) -> Result<Self> {
        let path = parent.join(format!("quorate-{purpose}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, kept: false })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it in place at the end.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("{} could not be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_temporary_directory_goes_and_a_given_one_stays() {
        let temporary = WorkDirectory::new(None, "test").unwrap();
        let path = temporary.path().to_owned();
        assert!(path.is_dir());
        drop(temporary);
        assert!(!path.exists());

        let given = tempfile::tempdir().unwrap();
        drop(WorkDirectory::new(Some(given.path()), "test").unwrap());
        assert!(given.path().is_dir());
    }
}
