//! Benchmarks: one file per question under `benches/`, and the comparison with peers.
//!
//! Relies on the rooms that are measured. Promises nothing to anyone: this library is empty and exists so
//! that the benchmarks have a home.
