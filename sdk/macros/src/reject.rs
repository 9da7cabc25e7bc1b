//! The derive itself.
//!
//! Relies on syn and on the messages. Promises errors at the place in the author's code that caused
//! them. Knows nothing of what the errors mean.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, LitInt, LitStr, Result, Variant};

use crate::message;

/// The least code of an author's own; smaller ones belong to the host and the SDK.
const CODE_MIN: u32 = 200;

/// What `#[reject(..)]` says of a variant.
struct Attribute {
    code: LitInt,
    name: String,
    message: LitStr,
}

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(input.span(), "only an enum can be a set of rejections"));
    };
    let mut codes = Vec::new();
    let mut names = Vec::new();
    let mut code_arms = Vec::new();
    let mut name_arms = Vec::new();
    let mut message_arms = Vec::new();
    for variant in &data.variants {
        let attribute = attribute(variant)?;
        let number: u32 = attribute.code.base10_parse()?;
        if number < CODE_MIN {
            let problem = format!("codes below {CODE_MIN} belong to the host and the SDK");
            return Err(Error::new(attribute.code.span(), problem));
        }
        if codes.contains(&number) {
            return Err(Error::new(attribute.code.span(), "another variant has this code"));
        }
        if names.contains(&attribute.name) {
            return Err(Error::new(variant.span(), "another variant has this name"));
        }
        let ident = &variant.ident;
        let name = &attribute.name;
        code_arms.push(quote!(Self::#ident { .. } => #number));
        name_arms.push(quote!(Self::#ident { .. } => #name));
        message_arms.push(message_arm(variant, &attribute.message)?);
        codes.push(number);
        names.push(attribute.name);
    }
    let ident = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    // An empty enum has no value to match; a reference to it does not count as empty by itself.
    let body = |arms: Vec<TokenStream>| {
        if arms.is_empty() { quote!(match *self {}) } else { quote!(match self { #(#arms,)* }) }
    };
    let (code, name, text) = (body(code_arms), body(name_arms), body(message_arms));
    Ok(quote! {
        impl #generics ::quorate_sdk::Reject for #ident #arguments #bounds {
            fn code(&self) -> u32 { #code }
            fn name(&self) -> &'static str { #name }
            fn message(&self) -> ::std::string::String { #text }
        }
    })
}

/// Reads the attribute of a variant.
fn attribute(variant: &Variant) -> Result<Attribute> {
    let mut code = None;
    let mut name = None;
    let mut message = None;
    for attribute in variant.attrs.iter().filter(|attribute| attribute.path().is_ident("reject")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("code") {
                code = Some(meta.value()?.parse::<LitInt>()?);
            } else if meta.path.is_ident("name") {
                name = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("message") {
                message = Some(meta.value()?.parse::<LitStr>()?);
            } else {
                return Err(meta.error("only `code`, `name` and `message` are known here"));
            }
            Ok(())
        })?;
    }
    match (code, message) {
        (Some(code), Some(message)) => {
            let name = name.unwrap_or_else(|| kebab_case(&variant.ident.to_string()));
            Ok(Attribute { code, name, message })
        }
        _ => Err(Error::new(
            variant.span(),
            "say `#[reject(code = 200, message = \"..\")]`, with a code of its own",
        )),
    }
}

/// The arm that formats a variant's message.
fn message_arm(variant: &Variant, literal: &LitStr) -> Result<TokenStream> {
    let message = message::parse(&literal.value()).map_err(|problem| Error::new(literal.span(), problem))?;
    let known = |field: &String| match &variant.fields {
        Fields::Named(named) => {
            named.named.iter().any(|known| known.ident.as_ref().is_some_and(|id| id == field))
        }
        Fields::Unnamed(unnamed) => {
            (0..unnamed.unnamed.len()).any(|place| format!("field_{place}") == *field)
        }
        Fields::Unit => false,
    };
    if let Some(unknown) = message.fields.iter().find(|field| !known(field)) {
        let unknown = unknown.trim_start_matches("field_");
        return Err(Error::new(literal.span(), format!("the variant has no field `{unknown}`")));
    }
    let ident = &variant.ident;
    let format = LitStr::new(&message.format, literal.span());
    let shown: Vec<_> =
        message.fields.iter().map(|field| format_ident!("{field}", span = literal.span())).collect();
    Ok(match &variant.fields {
        Fields::Named(_) => quote!(Self::#ident { #(#shown,)* .. } => ::std::format!(#format)),
        Fields::Unnamed(unnamed) => {
            let patterns = (0..unnamed.unnamed.len()).map(|place| {
                let name = format_ident!("field_{place}", span = literal.span());
                if shown.contains(&name) { quote!(#name) } else { quote!(_) }
            });
            quote!(Self::#ident(#(#patterns),*) => ::std::format!(#format))
        }
        Fields::Unit => quote!(Self::#ident => ::std::format!(#format)),
    })
}

/// `NotOpen` as `not-open`.
fn kebab_case(name: &str) -> String {
    let mut kebab = String::with_capacity(name.len() + 4);
    for (place, letter) in name.char_indices() {
        if letter.is_uppercase() && place > 0 {
            kebab.push('-');
        }
        kebab.extend(letter.to_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use syn::parse_quote;

    use super::*;

    fn refusal(input: DeriveInput) -> String {
        derive(&input).unwrap_err().to_string()
    }

    #[test]
    fn an_enum_with_codes_and_messages_derives() {
        let input: DeriveInput = parse_quote! {
            enum Refused<'a> {
                #[reject(code = 200, message = "no {what}")]
                NotThere { what: &'a str },
                #[reject(code = 201, name = "odd", message = "{1} of {0}")]
                Odd(u8, u8),
            }
        };
        let code = derive(&input).unwrap().to_string();
        for part in ["impl < 'a >", "\"not-there\"", "\"odd\"", "201u32", "\"{field_1} of {field_0}\""] {
            assert!(code.contains(part), "{part} is not in {code}");
        }
        let empty: DeriveInput = parse_quote!(
            enum Never {}
        );
        assert!(derive(&empty).is_ok());
    }

    #[test]
    fn codes_and_names_are_an_authors_own_and_unique() {
        let reserved = refusal(parse_quote!(
            enum E {
                #[reject(code = 199, message = "m")]
                A,
            }
        ));
        assert!(reserved.contains("below 200"), "{reserved}");
        let code = refusal(parse_quote! {
            enum E { #[reject(code = 200, message = "m")] A, #[reject(code = 200, message = "m")] B }
        });
        assert!(code.contains("this code"), "{code}");
        let name = refusal(parse_quote! {
            enum E {
                #[reject(code = 200, message = "m")]
                A,
                #[reject(code = 201, name = "a", message = "m")]
                B,
            }
        });
        assert!(name.contains("this name"), "{name}");
    }

    #[test]
    fn what_is_missing_or_unknown_is_said() {
        assert!(
            refusal(parse_quote!(
                struct S;
            ))
            .contains("only an enum")
        );
        assert!(
            refusal(parse_quote!(
                enum E {
                    A,
                }
            ))
            .contains("#[reject(code = 200")
        );
        assert!(
            refusal(parse_quote!(
                enum E {
                    #[reject(code = 200)]
                    A,
                }
            ))
            .contains("#[reject(code = 200")
        );
        let key = refusal(parse_quote!(
            enum E {
                #[reject(code = 200, text = "m")]
                A,
            }
        ));
        assert!(key.contains("only `code`"), "{key}");
        let field = refusal(parse_quote!(
            enum E {
                #[reject(code = 200, message = "{b}")]
                A { a: u8 },
            }
        ));
        assert!(field.contains("no field `b`"), "{field}");
        let place = refusal(parse_quote!(
            enum E {
                #[reject(code = 200, message = "{1}")]
                A(u8),
            }
        ));
        assert!(place.contains("no field `1`"), "{place}");
    }
}
