//! What `wit/machine.wit` looks like in Rust, generated.
//!
//! Relies on wit-bindgen. Promises nothing to authors: the rest of the crate stands between. On a
//! native target the imports exist but abort when they are called; the SDK never calls them there.

#![allow(unsafe_code, missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, unreachable_pub)]
#![allow(rust_2018_idioms, clippy::let_underscore_must_use)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "state-machine",
    pub_export_macro: true,
    default_bindings_module: "quorate_sdk::bindings",
    generate_all,
});
