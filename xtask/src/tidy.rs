//! The house rules that a program can check: arrows between crates, lengths, headers, stray markers.
//!
//! Relies on the directory layout and on `cargo metadata`. Promises one line per fault, with file and
//! line. Knows nothing that rustfmt or clippy already check.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// Characters of the longest line. rustfmt breaks code at 110; texts that it cannot break get ten more.
const LINE_CHARACTERS_MAX: usize = 120;
/// Lines of the longest file; from here on it holds a second subject.
const FILE_LINES_MAX: usize = 800;

/// Directories with Rust source of the workspace.
const SOURCE_DIRECTORIES: &[&str] = &["host", "plugins", "sdk", "tests", "benches", "xtask"];

/// Who may depend on whom, development dependencies aside. What is not listed may depend on anything.
const ARROWS: &[(&str, &[&str])] = &[
    ("quorate-types", &[]),
    ("quorate-crypto", &["quorate-types"]),
    ("quorate-consensus", &["quorate-types", "quorate-crypto"]),
    ("quorate-votes", &["quorate-types", "quorate-crypto"]),
    ("quorate-storage", &["quorate-types", "quorate-crypto"]),
    ("quorate-transport", &["quorate-types", "quorate-crypto"]),
    ("quorate-runtime", &["quorate-types", "quorate-crypto"]),
    (
        "quorate-node",
        &[
            "quorate-types",
            "quorate-crypto",
            "quorate-consensus",
            "quorate-votes",
            "quorate-storage",
            "quorate-transport",
            "quorate-runtime",
            "quorate-proto",
        ],
    ),
    ("quorate-sdk", &["quorate-sdk-macros"]),
    ("quorate-sdk-macros", &[]),
    ("quorate-build", &[]),
    ("quorate-proto", &[]),
    ("quorate-client", &["quorate-types", "quorate-crypto", "quorate-proto"]),
    ("quorate-kv", &["quorate-sdk"]),
    ("quorate-ledger", &["quorate-sdk"]),
    ("quorate-workflow", &["quorate-sdk"]),
    ("xtask", &[]),
];

/// Words that mark unfinished or debugging code. Written in two parts, so that this list is no fault.
const MARKERS: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("dbg", "!(")];

/// One fault against the rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    file: PathBuf,
    /// From 1; 0 for the whole file.
    line: usize,
    rule: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.rule)
    }
}

/// Checks every Rust file of the workspace.
pub fn sources(root: &Path) -> Result<Vec<Fault>> {
    let mut files = Vec::new();
    for directory in SOURCE_DIRECTORIES {
        collect(&root.join(directory), &mut files)?;
    }
    files.sort();
    let mut faults = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file);
        faults.extend(source(name, &text));
    }
    Ok(faults)
}

/// Checks one file.
fn source(file: &Path, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |line, rule: String| faults.push(Fault { file: file.to_owned(), line, rule });
    if !text.starts_with("//!") {
        fault(1, "open with `//!`: what the file is, relies on, promises and does not know".to_owned());
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        fault(0, format!("{lines} lines, more than {FILE_LINES_MAX}: split off the second subject"));
    }
    for (at, line) in text.lines().enumerate() {
        let characters = line.chars().count();
        if characters > LINE_CHARACTERS_MAX {
            fault(at + 1, format!("{characters} characters, more than {LINE_CHARACTERS_MAX}"));
        }
        for (head, tail) in MARKERS {
            let marker = format!("{head}{tail}");
            if line.contains(&marker) {
                fault(at + 1, format!("{marker} does not belong in finished code"));
            }
        }
    }
    faults
}

/// Checks the arrows between crates in the answer of `cargo metadata`.
pub fn arrows(metadata: &Value) -> Result<Vec<Fault>> {
    let packages =
        metadata.get("packages").and_then(Value::as_array).context("cargo metadata has no packages")?;
    let ours: Vec<&str> = packages.iter().filter_map(|package| package.get("name")?.as_str()).collect();
    let mut faults = Vec::new();
    for package in packages {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = text(package, "name").context("a package has no name")?;
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else { continue };
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let to = text(dependency, "name").context("a dependency has no name")?;
            let for_tests = dependency.get("kind").and_then(Value::as_str) == Some("dev");
            if !for_tests && ours.contains(&to.as_str()) && !allowed.contains(&to.as_str()) {
                let file = PathBuf::from(text(package, "manifest_path").unwrap_or_default());
                faults.push(Fault { file, line: 0, rule: format!("{name} must not depend on {to}") });
            }
        }
    }
    Ok(faults)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
        if path.is_dir() {
            // Guests that are built on their own may leave a target directory behind.
            if !path.ends_with("target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rules(text: &str) -> Vec<String> {
        source(Path::new("a.rs"), text).into_iter().map(|fault| fault.rule).collect()
    }

    #[test]
    fn a_tidy_file_has_no_fault() {
        assert!(rules("//! A file.\n\nfn main() {}\n").is_empty());
    }

    #[test]
    fn each_rule_finds_its_fault() {
        assert!(rules("fn main() {}\n")[0].contains("open with"));
        assert!(rules(&format!("//! {}\n", "x".repeat(130)))[0].contains("characters"));
        assert!(rules(&format!("//! A.\n{}", "\n".repeat(900)))[0].contains("lines"));
        assert!(rules(&format!("//! A.\n// {}{}\n", "TO", "DO"))[0].contains("finished"));
    }

    #[test]
    fn faults_name_file_and_line() {
        let faults = source(Path::new("a.rs"), &format!("//! A.\n// {}{}\n", "FIX", "ME"));
        assert!(faults[0].to_string().starts_with("a.rs:2: "));
    }

    #[test]
    fn an_arrow_upwards_is_found_and_one_for_tests_is_not() {
        let metadata = |kind: &str, to: &str| {
            serde_json::json!({"packages": [
                {"name": "quorate-types", "manifest_path": "t", "dependencies": [{"name": to, "kind": kind}]},
                {"name": "quorate-node", "manifest_path": "n", "dependencies": []},
            ]})
        };
        assert_eq!(arrows(&metadata("normal", "quorate-node")).unwrap().len(), 1);
        assert!(arrows(&metadata("dev", "quorate-node")).unwrap().is_empty());
        assert!(arrows(&metadata("normal", "serde")).unwrap().is_empty());
    }

    #[test]
    fn files_are_found_below_and_build_products_are_not() {
        let directory = tempfile::tempdir().unwrap();
        for name in SOURCE_DIRECTORIES {
            fs::create_dir_all(directory.path().join(name).join("src")).unwrap();
        }
        fs::create_dir_all(directory.path().join("tests/guests/target")).unwrap();
        fs::write(directory.path().join("host/src/a.rs"), "fn a() {}").unwrap();
        fs::write(directory.path().join("tests/guests/target/b.rs"), "fn b() {}").unwrap();
        assert_eq!(sources(directory.path()).unwrap().len(), 1);
    }
}
