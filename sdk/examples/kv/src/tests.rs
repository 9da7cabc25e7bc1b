//! The store through the native host.

#![allow(clippy::unwrap_used)]

use quorate_sdk::prelude::*;
use quorate_sdk::testing::TestHost;

use crate::{Command, KEY_BYTES_MAX, KeyValue, Query, VALUE_BYTES_MAX};

fn put(key: &str, value: &str) -> Command {
    Command::Put { key: key.into(), value: value.into() }
}

fn get(host: &TestHost<KeyValue>, key: &str) -> Option<Bytes> {
    host.query(Query::Get { key: key.into() }).unwrap()
}

fn keys(host: &TestHost<KeyValue>, prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    let query = Query::List { prefix: prefix.into(), after: after.map(Into::into), limit: Some(limit) };
    let pairs: Vec<(String, Bytes)> = host.query(query).unwrap();
    pairs.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn what_is_put_is_there_until_it_is_deleted() {
    let mut host = TestHost::<KeyValue>::new();
    assert_eq!(get(&host, "a"), None);
    assert!(host.apply(put("a", "1")).unwrap().is_empty());
    assert_eq!(get(&host, "a"), Some("1".into()));
    let delete = || Command::Delete { key: "a".into() };
    assert!(host.apply(delete()).unwrap().read::<bool>().unwrap());
    assert!(!host.apply(delete()).unwrap().read::<bool>().unwrap());
    assert_eq!(get(&host, "a"), None);
}

#[test]
fn compare_and_set_changes_only_what_was_expected() {
    let mut host = TestHost::<KeyValue>::new();
    let mut compare = |expected: Option<&str>, value: Option<&str>| {
        let command = Command::CompareAndSet {
            key: "a".into(),
            expected: expected.map(Into::into),
            value: value.map(Into::into),
        };
        host.apply(command).unwrap().read::<bool>().unwrap()
    };
    assert!(!compare(Some("0"), Some("1")), "it is not there");
    assert!(compare(None, Some("1")));
    assert!(!compare(None, Some("2")), "it is there");
    assert!(compare(Some("1"), Some("2")));
    assert!(compare(Some("2"), None));
    assert_eq!(get(&host, "a"), None);
}

#[test]
fn listings_are_ordered_bounded_and_go_on() {
    let mut host = TestHost::<KeyValue>::new();
    for key in ["b", "a/2", "a/10", "a/1", "a", "c"] {
        host.apply(put(key, "")).unwrap();
    }
    assert_eq!(keys(&host, "a/", None, 10), ["a/1", "a/10", "a/2"]);
    assert_eq!(keys(&host, "a/", None, 2), ["a/1", "a/10"]);
    assert_eq!(keys(&host, "a/", Some("a/10"), 2), ["a/2"]);
    assert_eq!(keys(&host, "a/", Some("a"), 1), ["a/1"]);
    assert_eq!(keys(&host, "", Some("a/2"), 10), ["b", "c"]);
    assert_eq!(keys(&host, "x", None, 10), Vec::<String>::new());
}

#[test]
fn keys_and_values_at_their_bounds_pass_and_beyond_are_refused() {
    let mut host = TestHost::<KeyValue>::new();
    host.apply(put(&"k".repeat(KEY_BYTES_MAX), &"v".repeat(VALUE_BYTES_MAX))).unwrap();
    assert_eq!(host.apply(put("", "v")).unwrap_err().name, "bad-key");
    assert_eq!(host.apply(put(&"k".repeat(KEY_BYTES_MAX + 1), "v")).unwrap_err().code, 200);
    assert_eq!(host.apply(put("k", &"v".repeat(VALUE_BYTES_MAX + 1))).unwrap_err().name, "bad-value");
    assert_eq!(host.state().len(), 1);
}

#[test]
fn a_batch_is_written_in_one_call_and_runs_alike_twice() {
    let mut host = TestHost::<KeyValue>::new();
    host.apply_batch((0..256).map(|n| put(&format!("key-{:03}", n % 200), &"v".repeat(256)))).unwrap();
    assert_eq!((host.write_calls(), host.state().len()), (1, 200));
    host.check_determinism();
}

#[test]
fn the_schema_names_every_command_and_field() {
    let schema = TestHost::<KeyValue>::schema();
    for part in [
        r#"{"name":"put","fields":[{"name":"key","type":"string"},{"name":"value","type":"bytes"}]}"#,
        r#"{"name":"compare-and-set","fields":["#,
        r#"{"name":"expected","type":{"option":"bytes"}}"#,
        r#""queries":[{"name":"get","#,
        r#""events":[]"#,
    ] {
        assert!(schema.contains(part), "{part} is not in {schema}");
    }
}
