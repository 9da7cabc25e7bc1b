//! The kernels as they are shipped: binaries for known cards, portable code for newer ones, source for the
//! rest.
//!
//! Relies on `cargo xtask gpu build`, which made the files in `kernels/built` from the source beside them.
//! Promises one text of the source with its headers in place, so that compiling it gives the same bytes in
//! every directory. Knows no device.

#![allow(unsafe_code)]

use cudarc::nvrtc::{self, CompileOptions};

/// Every file of the source, each after those it includes.
const FILES: [(&str, &str); 8] = [
    ("platform.h", include_str!("../../kernels/platform.h")),
    ("field.h", include_str!("../../kernels/field.h")),
    ("scalar.h", include_str!("../../kernels/scalar.h")),
    ("sha512_constants.inc", include_str!("../../kernels/sha512_constants.inc")),
    ("sha512.h", include_str!("../../kernels/sha512.h")),
    ("curve.h", include_str!("../../kernels/curve.h")),
    ("verify.h", include_str!("../../kernels/verify.h")),
    ("votes.cu", include_str!("../../kernels/votes.cu")),
];

/// The options that decide what is compiled; the architecture is added.
const OPTIONS: [&str; 1] = ["--std=c++17"];

/// What is loaded onto a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// Machine code of exactly one architecture.
    Cubin(&'static [u8]),
    /// Portable code, which the driver compiles for its card.
    Ptx(&'static str),
}

/// What is shipped for a card of this compute capability; `None` below 8.0, where the source is compiled.
#[must_use]
pub fn built(capability: (i32, i32)) -> Option<Binary> {
    match capability {
        (9, 0) => Some(Binary::Cubin(include_bytes!("../../kernels/built/votes_sm_90.cubin"))),
        (8, 9) => Some(Binary::Cubin(include_bytes!("../../kernels/built/votes_sm_89.cubin"))),
        (major, _) if major >= 8 => {
            Some(Binary::Ptx(include_str!("../../kernels/built/votes_compute_80.ptx")))
        }
        _ => None,
    }
}

/// The source as one text: each file stands where it is first included.
#[must_use]
pub fn flattened_source() -> String {
    let mut out = String::new();
    let mut seen = Vec::new();
    flatten("votes.cu", &mut seen, &mut out);
    out
}

fn flatten(name: &'static str, seen: &mut Vec<&'static str>, out: &mut String) {
    if seen.contains(&name) {
        return;
    }
    seen.push(name);
    let file = FILES.iter().find(|(file, _)| *file == name);
    for line in file.map_or("", |(_, text)| text).lines() {
        let included = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        match included.and_then(|included| FILES.iter().find(|(file, _)| *file == included)) {
            Some((included, _)) => flatten(included, seen, out),
            None if line == "#pragma once" => {}
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
}

/// Compiles the source to portable code for `architecture`, such as `compute_80`, with the run-time compiler.
///
/// # Errors
///
/// What is missing, or the compiler's log.
pub fn compile_ptx(architecture: &str) -> Result<String, String> {
    // SAFETY: tries to open a library and closes it again.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err("the run-time compiler (libnvrtc) is not installed".to_owned());
    }
    let mut options = vec![format!("--gpu-architecture={architecture}")];
    options.extend(OPTIONS.map(str::to_owned));
    let options = CompileOptions { options, name: Some("votes.cu".to_owned()), ..CompileOptions::default() };
    let compiled = nvrtc::compile_ptx_with_opts(flattened_source(), options);
    compiled.map(|ptx| ptx.to_src()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is left out would only be missed where the compiler runs.
    #[test]
    fn the_source_is_whole_and_each_file_stands_once() {
        let source = flattened_source();
        assert!(!source.contains("#include \"") && !source.contains("#pragma once"));
        for mark in ["#define ADD_SET", "struct alignas(16) Field", "CONSTANT u32 ORDER[9]", "votes_any_key("]
        {
            assert!(source.contains(mark), "{mark}");
        }
        assert_eq!(source.matches("struct Point {").count(), 1);
        assert_eq!(source.matches("0x428a2f98d728ae22ull").count(), 1);
    }

    #[test]
    fn each_card_gets_its_binary_and_an_old_one_none() {
        assert!(matches!(built((9, 0)), Some(Binary::Cubin(_))));
        assert!(matches!(built((8, 9)), Some(Binary::Cubin(_))));
        for newer_or_other in [(8, 0), (8, 6), (10, 0), (12, 1)] {
            assert!(matches!(built(newer_or_other), Some(Binary::Ptx(_))));
        }
        assert_eq!(built((7, 5)), None);
    }

    /// A file that was changed without its build, or only half checked in, would be loaded unnoticed.
    #[test]
    fn shipped_binaries_are_those_whose_digests_are_recorded() {
        let recorded = include_str!("../../kernels/built/DIGESTS");
        for (name, capability) in
            [("votes_sm_90.cubin", (9, 0)), ("votes_sm_89.cubin", (8, 9)), ("votes_compute_80.ptx", (8, 0))]
        {
            let digest = match built(capability) {
                Some(Binary::Cubin(bytes)) => quorate_crypto::component_digest(bytes),
                Some(Binary::Ptx(text)) => quorate_crypto::component_digest(text.as_bytes()),
                None => quorate_types::Digest::default(),
            };
            assert!(recorded.contains(&format!("{digest}  {name}\n")), "{name} has the digest {digest}");
        }
    }

    /// The kernels that are launched by name are in every binary that is shipped.
    #[test]
    fn shipped_binaries_hold_every_kernel() {
        for capability in [(9, 0), (8, 9), (8, 0)] {
            let bytes = match built(capability) {
                Some(Binary::Cubin(bytes)) => bytes,
                Some(Binary::Ptx(text)) => text.as_bytes(),
                None => &[],
            };
            for name in crate::gpu::device::KERNELS {
                let found = bytes.windows(name.len()).any(|window| window == name.as_bytes());
                assert!(found, "{name} for {capability:?}");
            }
        }
    }
}
