//! `cargo xtask gpu`: the kernels' binaries, and the program that measures a card.
//!
//! Relies on python's pip for the compilers, whose wheels are pinned by digest in
//! `host/votes/kernels/toolchain.txt`, and on the program `quorate-gpu` to call the run-time compiler.
//! Promises the same bytes in every run and directory, that no kernel exceeds its recorded bounds, and that
//! the program for measuring needs nothing but the driver where it runs. Knows no arithmetic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::steps::{self, Profile, Workspace};

const KERNELS: &str = "host/votes/kernels";
const PROGRAM: &str = "quorate-gpu";
/// The greatest size of the program that measures a card.
const BUNDLE_BYTES_MAX: u64 = 40 << 20;
/// Bytes of one instruction on every architecture since 7.0.
const INSTRUCTION_BYTES: u64 = 16;

/// What is built: portable code, or that and machine code made from it.
const BINARIES: [(&str, &str, Option<&str>); 3] = [
    ("votes_sm_90.cubin", "compute_90", Some("sm_90")),
    ("votes_sm_89.cubin", "compute_89", Some("sm_89")),
    ("votes_compute_80.ptx", "compute_80", None),
];

/// The most registers and instructions of each kernel on any of the architectures; none may spill. With 128
/// registers four blocks of 128 threads fit on a multiprocessor. Recorded from a build, a few per cent above.
const BOUNDS: [(&str, u32, u64); 6] = [
    ("votes_any_key", 128, 15_500),
    ("votes_known_key_4", 128, 5_600),
    ("votes_known_key_8", 128, 5_600),
    ("build_tables_4", 160, 9_100),
    ("build_tables_8", 160, 9_100),
    ("multiply_rate", 48, 400),
];

/// Builds the binaries and puts them where the source includes them.
pub fn build(workspace: &Workspace) -> Result<()> {
    let built = compile(workspace)?;
    let checked_in = workspace.root.join(KERNELS).join("built");
    fs::create_dir_all(&checked_in)?;
    for (name, ..) in BINARIES {
        let to = checked_in.join(name);
        fs::copy(built.join(name), &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    let digests = digests(workspace, &checked_in)?;
    fs::write(checked_in.join("DIGESTS"), digests)?;
    Ok(())
}

/// Builds the binaries again and compares them with those that are checked in.
pub fn verify(workspace: &Workspace) -> Result<()> {
    let built = compile(workspace)?;
    let checked_in = workspace.root.join(KERNELS).join("built");
    for (name, ..) in BINARIES {
        let (new, old) = (fs::read(built.join(name))?, fs::read(checked_in.join(name))?);
        ensure!(new == old, "{name} differs from the build of its source: run `cargo xtask gpu build`");
        println!("{name}: {} bytes, identical", new.len());
    }
    let recorded = fs::read_to_string(checked_in.join("DIGESTS"))?;
    ensure!(recorded == digests(workspace, &checked_in)?, "the recorded digests are not those of the files");
    Ok(())
}

/// Builds the program that measures a card, and says how to run it.
pub fn bench_bundle(workspace: &Workspace) -> Result<()> {
    build_program(workspace, Profile::Release)?;
    let directory = workspace.target.join("gpu-bench-bundle");
    fs::create_dir_all(&directory)?;
    let program = directory.join(PROGRAM);
    fs::copy(workspace.target.join("release").join(PROGRAM), &program)?;
    // Symbols help nobody where the program only measures.
    if !steps::succeeds(Command::new("strip").arg(&program)) {
        eprintln!("strip is not installed; the program keeps its symbols");
    }
    let bytes = fs::metadata(&program)?.len();
    ensure!(bytes <= BUNDLE_BYTES_MAX, "the program has {bytes} bytes, more than {BUNDLE_BYTES_MAX}");
    println!("{}: {bytes} bytes", program.display());
    println!(
        "copy it to a machine with a card and run `./{PROGRAM} bench`; status 3 means no device is present"
    );
    Ok(())
}

/// Compiles everything into a directory of its own.
fn compile(workspace: &Workspace) -> Result<PathBuf> {
    let toolchain = toolchain(workspace)?;
    build_program(workspace, Profile::Dev)?;
    let out = workspace.target.join("gpu-build");
    fs::create_dir_all(&out)?;
    for (name, portable, machine) in BINARIES {
        workspace.step(&format!("compile {name}"), || {
            let text = portable_code(workspace, &toolchain, portable)?;
            let Some(machine) = machine else { return Ok(fs::write(out.join(name), text)?) };
            let source = out.join(format!("{machine}.ptx"));
            fs::write(&source, text)?;
            machine_code(&toolchain, machine, &source, &out.join(name))
        })?;
    }
    Ok(out)
}

fn build_program(workspace: &Workspace, profile: Profile) -> Result<()> {
    workspace.step("build the device program", || {
        let mut command = workspace.cargo("build");
        command.args(["--package", "quorate-votes", "--bin", PROGRAM]);
        if profile == Profile::Release {
            command.arg("--release");
        }
        steps::run(&mut command)
    })
}

/// Where the compilers are, downloaded if they are not there yet.
fn toolchain(workspace: &Workspace) -> Result<PathBuf> {
    let pins = workspace.root.join(KERNELS).join("toolchain.txt");
    let wanted = fs::read_to_string(&pins).with_context(|| format!("cannot read {}", pins.display()))?;
    let directory = workspace.target.join("gpu-toolchain");
    let stamp = directory.join("pins.txt");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(directory.join("nvidia/cu13"));
    }
    workspace.step("download the compilers", || {
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]);
        pip.arg("--target").arg(&directory).arg("--requirement").arg(&pins);
        steps::run(&mut pip)
    })?;
    fs::write(&stamp, wanted)?;
    Ok(directory.join("nvidia/cu13"))
}

fn portable_code(workspace: &Workspace, toolchain: &Path, architecture: &str) -> Result<Vec<u8>> {
    let mut command = workspace.binary(Profile::Dev, PROGRAM);
    command.args(["compile", architecture]).env("LD_LIBRARY_PATH", toolchain.join("lib"));
    let output = command.output().context("cannot start the device program")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn machine_code(toolchain: &Path, architecture: &str, source: &Path, out: &Path) -> Result<()> {
    let mut command = Command::new(toolchain.join("bin/ptxas"));
    command.args(["-O3", "-v", "-arch", architecture]).arg(source).arg("-o").arg(out);
    let output = command.output().context("cannot start ptxas")?;
    let report = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ptxas: {report}");
    let image = fs::read(out)?;
    for (kernel, registers_max, instructions_max) in BOUNDS {
        let used = usage(&report, kernel).with_context(|| format!("ptxas does not report {kernel}"))?;
        let section = section_bytes(&image, &format!(".text.{kernel}"));
        let instructions = section.with_context(|| format!("no code of {kernel}"))? / INSTRUCTION_BYTES;
        eprintln!(
            "{architecture} {kernel}: {} registers, {} bytes spilled, {instructions} instructions",
            used.registers, used.spilled
        );
        if used.registers > registers_max || used.spilled > 0 || instructions > instructions_max {
            bail!(
                "{kernel} exceeds its bounds: {registers_max} registers, no spill, {instructions_max} instructions"
            );
        }
    }
    Ok(())
}

/// What `ptxas -v` says about one kernel.
#[derive(Debug, PartialEq, Eq)]
struct Usage {
    registers: u32,
    /// Bytes stored to memory for want of registers.
    spilled: u32,
}

fn usage(report: &str, kernel: &str) -> Option<Usage> {
    let mut lines = report.lines().skip_while(|line| !line.contains(&format!("entry function '{kernel}'")));
    let number_before = |line: &str, mark: &str| {
        let before = &line[..line.find(mark)?];
        before.rsplit([' ', ',']).find(|word| !word.is_empty())?.parse().ok()
    };
    let spilled = lines.find_map(|line| number_before(line, " bytes spill stores"))?;
    let registers = lines.find_map(|line| number_before(line, " registers"))?;
    Some(Usage { registers, spilled })
}

/// Bytes of one section of a 64-bit little-endian ELF file.
fn section_bytes(image: &[u8], name: &str) -> Option<u64> {
    let number = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(image.get(at..at.checked_add(len)?)?);
        Some(u64::from_le_bytes(bytes))
    };
    let headers = usize::try_from(number(0x28, 8)?).ok()?;
    let size = usize::try_from(number(0x3a, 2)?).ok()?;
    let count = usize::try_from(number(0x3c, 2)?).ok()?;
    let names = headers + size * usize::try_from(number(0x3e, 2)?).ok()?;
    let names = usize::try_from(number(names + 0x18, 8)?).ok()?;
    (0..count).map(|section| headers + section * size).find_map(|header| {
        let at = names + usize::try_from(number(header, 4)?).ok()?;
        let found = image.get(at..)?.split(|byte| *byte == 0).next()?;
        (found == name.as_bytes()).then(|| number(header + 0x20, 8))?
    })
}

fn digests(workspace: &Workspace, directory: &Path) -> Result<String> {
    let mut command = workspace.binary(Profile::Dev, PROGRAM);
    command.current_dir(directory).arg("digest").args(BINARIES.map(|(name, ..)| name));
    let output = command.output().context("cannot start the device program")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    704 bytes stack frame, 24 bytes spill stores, 48 bytes spill loads
ptxas info    : Used 124 registers, used 1 barriers, 704 bytes cumulative stack size
";

    /// Read from the wrong kernel, a bound would hold that is broken.
    #[test]
    fn registers_and_spills_are_those_of_the_kernel() {
        assert_eq!(usage(REPORT, "first"), Some(Usage { registers: 40, spilled: 0 }));
        assert_eq!(usage(REPORT, "second"), Some(Usage { registers: 124, spilled: 24 }));
        assert_eq!(usage(REPORT, "third"), None);
    }

    #[test]
    fn sections_are_found_by_name_and_broken_files_have_none() {
        // A header, the names, and three section headers: none, the names, one of 32 bytes.
        let mut image = vec![0_u8; 0x40];
        let names = b"\0.shstrtab\0.text.kernel\0";
        image.extend_from_slice(names);
        let headers = image.len() as u64;
        for (name, offset, bytes) in [(0_u32, 0_u64, 0_u64), (1, 0x40, names.len() as u64), (11, 0, 32)] {
            let mut header = [0_u8; 0x40];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&offset.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&bytes.to_le_bytes());
            image.extend_from_slice(&header);
        }
        image[0x28..0x30].copy_from_slice(&headers.to_le_bytes());
        image[0x3a..0x40].copy_from_slice(&[0x40, 0, 3, 0, 1, 0]);
        assert_eq!(section_bytes(&image, ".text.kernel"), Some(32));
        assert_eq!(section_bytes(&image, ".text.other"), None);
        assert_eq!(section_bytes(&image[..80], ".text.kernel"), None);
    }
}
