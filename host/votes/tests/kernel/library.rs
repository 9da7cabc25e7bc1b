//! The kernels' source as a library of this machine, compiled and loaded once.
//!
//! Relies on the `cc` crate to find a compiler. Promises that what is called is what the kernels call. Knows
//! no case.

#![allow(unsafe_code)]

use std::path::PathBuf;
use std::sync::OnceLock;

use num_bigint::BigUint;

use crate::cases::{BASE_POINT, Case};

/// Bytes of one table entry: three numbers of 32 bytes.
const ENTRY_BYTES: usize = 96;

type BuildTable = unsafe extern "C" fn(i32, *const u8, i32, *mut Entry) -> i32;
type VerifyGroup = unsafe extern "C" fn(
    i32,
    i32,
    *const *const u8,
    *const *const u8,
    *const *const u8,
    *const i32,
    *const *const Entry,
    *const Entry,
    *mut u8,
);
type FieldOperation = unsafe extern "C" fn(i32, *const u32, *const u32, *mut u32);
type ScalarReduce = unsafe extern "C" fn(*mut u32, *const u32);
type TableEntries = unsafe extern "C" fn(i32) -> i32;

/// One entry of a table, aligned as the kernels want it.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Entry([u8; ENTRY_BYTES]);

/// The multiples of one point.
pub struct Table {
    window: i32,
    entries: Vec<Entry>,
}

/// Which code verifies.
pub enum Path<'a> {
    /// The path for any key; takes the first row of the base point's table of window 4.
    AnyKey {
        /// The base point's table.
        base: &'a Table,
    },
    /// The path with tables, both of one window.
    KnownKey {
        /// The table of the negated key.
        key: &'a Table,
        /// The base point's table.
        base: &'a Table,
    },
}

impl Path<'_> {
    /// For messages.
    pub fn name(&self) -> String {
        match self {
            Self::AnyKey { .. } => "the path for any key".to_owned(),
            Self::KnownKey { key, .. } => format!("the path with tables of window {}", key.window),
        }
    }
}

/// The loaded functions.
pub struct Library {
    build_table: BuildTable,
    table_entries: TableEntries,
    verify: VerifyGroup,
    field: FieldOperation,
    scalar_reduce: ScalarReduce,
}

impl Library {
    /// Compiles and loads the source, once for all tests of this process.
    pub fn compile() -> &'static Self {
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        LIBRARY.get_or_init(|| {
            let path = build();
            let library = Self::load(&path);
            // What is loaded stays; the file is not needed any more.
            std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
            library
        })
    }

    fn load(path: &PathBuf) -> Self {
        // SAFETY: the library was just compiled from our source, has no initialisers, and stays loaded for
        // the life of the process; the types of its functions are those of `host.cpp`.
        unsafe {
            let library = Box::leak(Box::new(libloading::Library::new(path).unwrap()));
            Self {
                build_table: *library.get(b"host_build_table").unwrap(),
                table_entries: *library.get(b"host_table_entries").unwrap(),
                verify: *library.get(b"host_verify").unwrap(),
                field: *library.get(b"host_field").unwrap(),
                scalar_reduce: *library.get(b"host_scalar_reduce").unwrap(),
            }
        }
    }

    /// The table of a negated key; `None` for a key that gets none.
    pub fn table(&self, window: i32, public: &[u8; 32]) -> Option<Table> {
        self.build(window, public, true)
    }

    /// The table of the base point.
    pub fn base_table(&self, window: i32) -> Table {
        self.build(window, &BASE_POINT, false).unwrap()
    }

    fn build(&self, window: i32, point: &[u8; 32], negate: bool) -> Option<Table> {
        // SAFETY: plain function of its argument.
        let count = unsafe { (self.table_entries)(window) };
        let mut entries = vec![Entry([0; ENTRY_BYTES]); usize::try_from(count).unwrap()];
        // SAFETY: 32 bytes to read, and as many entries to write as the library asked for.
        let built =
            unsafe { (self.build_table)(window, point.as_ptr(), i32::from(negate), entries.as_mut_ptr()) };
        (built == 1).then_some(Table { window, entries })
    }

    /// Verifies at most four cases that share one inversion.
    pub fn verify(&self, path: &Path<'_>, group: &[&Case]) -> Vec<bool> {
        assert!(group.len() <= 4);
        if group.is_empty() {
            return Vec::new();
        }
        let (window, key, base) = match path {
            Path::AnyKey { base } => (0, base, base),
            Path::KnownKey { key, base } => (key.window, key, base),
        };
        let signatures: Vec<_> = group.iter().map(|case| case.signature.as_ptr()).collect();
        let keys: Vec<_> = group.iter().map(|case| case.public.as_ptr()).collect();
        let messages: Vec<_> = group.iter().map(|case| case.message.as_ptr()).collect();
        let lengths: Vec<_> = group.iter().map(|case| i32::try_from(case.message.len()).unwrap()).collect();
        let tables = vec![key.entries.as_ptr(); group.len()];
        let mut verdicts = vec![2; group.len()];
        // SAFETY: all arrays have as many elements as the group, each of the length that the path reads;
        // both tables are of the path's window.
        unsafe {
            (self.verify)(
                window,
                i32::try_from(group.len()).unwrap(),
                signatures.as_ptr(),
                keys.as_ptr(),
                messages.as_ptr(),
                lengths.as_ptr(),
                tables.as_ptr(),
                base.entries.as_ptr(),
                verdicts.as_mut_ptr(),
            );
        }
        assert!(verdicts.iter().all(|verdict| *verdict < 2), "a verdict for each");
        verdicts.into_iter().map(|verdict| verdict == 1).collect()
    }

    /// One field operation, by its number in `host.cpp`.
    pub fn field(&self, operation: i32, a: &BigUint, b: &BigUint) -> BigUint {
        let (a, b, mut r) = (words::<8>(a), words::<8>(b), [0; 8]);
        // SAFETY: three arrays of eight words.
        unsafe { (self.field)(operation, a.as_ptr(), b.as_ptr(), r.as_mut_ptr()) };
        BigUint::new(r.to_vec())
    }

    /// A number below 2^512 modulo the group's order.
    pub fn scalar_reduce(&self, h: &BigUint) -> BigUint {
        let (h, mut r) = (words::<16>(h), [0; 8]);
        // SAFETY: eight words to write, sixteen to read.
        unsafe { (self.scalar_reduce)(r.as_mut_ptr(), h.as_ptr()) };
        BigUint::new(r.to_vec())
    }
}

fn words<const N: usize>(number: &BigUint) -> [u32; N] {
    let digits = number.to_u32_digits();
    std::array::from_fn(|at| digits.get(at).copied().unwrap_or(0))
}

/// Compiles `kernels/host.cpp` to a shared library.
fn build() -> PathBuf {
    let source = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("kernels/host.cpp");
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kernel-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let tool = cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .pic(true)
        .target(&triple)
        .host(&triple)
        .out_dir(&directory)
        .cargo_metadata(false)
        .try_get_compiler()
        .expect("a C++ compiler, such as Debian's package g++");
    let library = directory.join("kernel.so");
    let mut command = tool.to_command();
    command.args(["-shared", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library).arg(&source);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}
