//! `#[derive(Reject)]`: an enum of errors as rejections with codes, names and messages.
//!
//! Relies on syn. Promises at compile time that codes are an author's to give and that no code or name
//! is given twice. Knows no state machine.

mod message;
mod reject;

use proc_macro::TokenStream;

/// Derives `quorate_sdk::Reject` for an enum of errors.
///
/// Each variant states its code, at least 200 and unique, and its message, in which `{field}` stands
/// for a field and `{0}` for an unnamed one. The name is the variant's in kebab-case unless it is
/// stated.
///
/// ```text
/// #[derive(Reject)]
/// enum Refused {
///     #[reject(code = 200, message = "account `{account}` is not open")]
///     NotOpen { account: String },
///     #[reject(code = 201, name = "too-poor", message = "{0} are missing")]
///     Insufficient(u64),
/// }
/// ```
#[proc_macro_derive(Reject, attributes(reject))]
pub fn derive_reject(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    reject::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
