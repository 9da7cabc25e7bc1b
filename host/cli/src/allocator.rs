//! The memory allocator of every program made of these parts.
//!
//! Relies on jemalloc. Promises that what one thread allocated another frees without a lock that both
//! wait for, and that memory lies on huge pages where the system has them: a walk through a large state
//! then misses the address cache less often. Costs some tens of mebibytes per process in pages that are
//! not full.

#[global_allocator]
static JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc when the process starts (jemalloc(3), "TUNING"); the variable `_RJEM_MALLOC_CONF` of the
/// environment overrules it.
#[expect(unsafe_code, reason = "jemalloc finds its settings by the name of a symbol, which nothing else has")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 31] = b"thp:always,metadata_thp:always\0";
