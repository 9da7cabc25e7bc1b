//! What could go wrong: a read misses one of the layers, a scan repeats or skips a key where layers
//! meet, or a refused command leaves something behind. Checked against ordinary maps.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use crate::prelude::*;
use crate::testing::TestHost;

const PAIRS: Map<String, u32> = Map::new("pairs");
const GRID: Map<(String, i8), u32> = Map::new("grid");
// Names that begin another's, to see that their keys keep apart.
const PAIR: Map<String, u32> = Map::new("pair");
const LAST: Value<u32> = Value::new("pairs\u{1}");

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Step {
    Put(String, u32),
    Remove(String),
    Clear,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    /// Takes the steps and answers with everything, in both directions.
    Run {
        steps: Vec<Step>,
        accepted: bool,
    },
    Fill {
        count: u32,
    },
    PutLong {
        key_bytes: usize,
        value_bytes: usize,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Query {
    Page { after: Option<String>, limit: usize },
    Below { end: String },
    Between { start: String, end: String },
    Starting { start: String },
    Get { key: String },
    Row { row: String },
    Long { key_bytes: usize },
}

type Pairs = Vec<(String, u32)>;

struct Machine;

impl StateMachine for Machine {
    const NAME: &'static str = "store-test";
    const VERSION: &'static str = "1.0.0";
    type Command = Command;
    type Query = Query;
    type Event = Nothing;

    fn apply(ctx: &mut Context, command: Command) -> Result<Answer, Rejection> {
        match command {
            Command::Run { steps, accepted } => {
                for step in steps {
                    match step {
                        Step::Put(key, value) => PAIRS.insert(ctx, &key, &value),
                        Step::Remove(key) => PAIRS.remove(ctx, &key),
                        Step::Clear => PAIRS.clear(ctx),
                    }
                }
                let ascending: Pairs = PAIRS.iter(ctx).collect();
                let descending: Pairs = PAIRS.iter(ctx).descending().collect();
                let firsts: Vec<Option<u32>> = ascending.iter().map(|(key, _)| PAIRS.get(ctx, key)).collect();
                if !accepted {
                    return Err(Rejection::new(200, "unwanted", "as asked"));
                }
                answer((ascending, descending, firsts, PAIRS.is_empty(ctx)))
            }
            Command::Fill { count } => {
                for number in 0..count {
                    PAIRS.insert(ctx, &format!("{number:05}"), &number);
                    PAIR.insert(ctx, &format!("{number:05}"), &u32::MAX);
                    GRID.insert(ctx, &(format!("{}", number % 3), (number % 200) as i8), &number);
                }
                LAST.set(ctx, &count);
                answer(LAST.get(ctx))
            }
            Command::PutLong { key_bytes, value_bytes } => {
                let long: Map<String, Bytes> = Map::new("long");
                long.insert(ctx, "ordinary", &Bytes::default());
                long.insert(ctx, &"k".repeat(key_bytes), &vec![0; value_bytes].into());
                done()
            }
        }
    }

    fn query(view: &View, query: Query) -> Result<Answer, Rejection> {
        match query {
            Query::Page { after: None, limit } => answer(PAIRS.iter(view).take(limit).collect::<Pairs>()),
            Query::Page { after: Some(after), limit } => {
                answer(PAIRS.after(view, &after).take(limit).collect::<Pairs>())
            }
            Query::Below { end } => answer(PAIRS.range(view, ..end).descending().collect::<Pairs>()),
            Query::Between { start, end } => answer(
                PAIRS
                    .range::<&str>(view, (Bound::Excluded(&*start), Bound::Included(&*end)))
                    .collect::<Pairs>(),
            ),
            Query::Starting { start } => answer(PAIRS.starting_with(view, &start).collect::<Pairs>()),
            Query::Get { key } => answer((PAIRS.get(view, &key), PAIRS.contains(view, &key))),
            Query::Row { row } => {
                answer(GRID.under(view, &row).map(|((_, place), _)| place).collect::<Vec<i8>>())
            }
            Query::Long { key_bytes } => answer(PAIRS.get(view, &"k".repeat(key_bytes))),
        }
    }
}

fn keys() -> impl Strategy<Value = String> {
    "[ab\0]{0,3}"
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (keys(), any::<u32>()).prop_map(|(key, value)| Step::Put(key, value)),
        3 => keys().prop_map(Step::Remove),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 0..8)
}

fn model(pairs: &mut BTreeMap<String, u32>, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Put(key, value) => {
                pairs.insert(key.clone(), *value);
            }
            Step::Remove(key) => {
                pairs.remove(key);
            }
            Step::Clear => pairs.clear(),
        }
    }
}

proptest! {
    #[test]
    fn every_layer_is_seen_and_refused_commands_are_not(
        entries in proptest::collection::vec(proptest::collection::vec((steps(), any::<bool>()), 1..5), 1..5),
        bounds in (keys(), keys()),
    ) {
        let mut host = TestHost::<Machine>::new();
        let mut pairs = BTreeMap::new();
        for entry in entries {
            let run = |(steps, accepted): &(Vec<Step>, bool)| {
                Command::Run { steps: steps.clone(), accepted: *accepted }
            };
            let commands = entry.iter().map(run);
            let outcomes = host.apply_batch(commands).unwrap();
            for ((steps, accepted), outcome) in entry.iter().zip(outcomes) {
                if !accepted {
                    prop_assert_eq!(outcome.unwrap_err().name, "unwanted");
                    continue;
                }
                model(&mut pairs, steps);
                let ascending: Pairs = pairs.clone().into_iter().collect();
                let descending: Pairs = ascending.iter().rev().cloned().collect();
                let values: Vec<Option<u32>> = pairs.values().copied().map(Some).collect();
                prop_assert_eq!(
                    outcome.unwrap().read::<(Pairs, Pairs, Vec<Option<u32>>, bool)>().unwrap(),
                    (ascending, descending, values, pairs.is_empty())
                );
            }
        }
        let (start, end) = bounds;
        let ask = |query| host.query::<Pairs>(query).unwrap();
        let of = |wanted: &dyn Fn(&String) -> bool| -> Pairs {
            pairs.iter().filter(|(key, _)| wanted(key)).map(|(key, value)| (key.clone(), *value)).collect()
        };
        prop_assert_eq!(
            ask(Query::Between { start: start.clone(), end: end.clone() }),
            of(&|key| *key > start && *key <= end)
        );
        let mut below = of(&|key| *key < end);
        below.reverse();
        prop_assert_eq!(ask(Query::Below { end }), below);
        prop_assert_eq!(ask(Query::Starting { start: start.clone() }), of(&|key| key.starts_with(&start)));
        let got: (Option<u32>, bool) = host.query(Query::Get { key: start.clone() }).unwrap();
        prop_assert_eq!(got, (pairs.get(&start).copied(), pairs.contains_key(&start)));
    }
}

#[test]
fn long_scans_go_through_many_pages_and_stay_in_their_map() {
    let mut host = TestHost::<Machine>::new();
    let last: Option<u32> = host.apply(Command::Fill { count: 3_000 }).unwrap().read().unwrap();
    assert_eq!(last, Some(3_000));
    let all: Pairs = host.query(Query::Page { after: None, limit: 10_000 }).unwrap();
    assert_eq!(all.len(), 3_000);
    assert!(all.iter().enumerate().all(|(place, (_, value))| place == *value as usize));
    let page: Pairs = host.query(Query::Page { after: Some("01999".into()), limit: 2 }).unwrap();
    assert_eq!(page, [("02000".into(), 2_000), ("02001".into(), 2_001)]);
}

#[test]
fn the_first_part_of_a_key_selects_a_row_in_order() {
    let mut host = TestHost::<Machine>::new();
    host.apply(Command::Fill { count: 600 }).unwrap();
    let row: Vec<i8> = host.query(Query::Row { row: "1".into() }).unwrap();
    assert_eq!(row.len(), 200);
    assert!(row.is_sorted(), "{row:?}");
    assert_eq!(row.first(), Some(&-128));
    assert!(host.query::<Vec<i8>>(Query::Row { row: "4".into() }).unwrap().is_empty());
}

#[test]
fn keys_and_values_that_the_host_would_not_take_refuse_the_command() {
    let mut host = TestHost::<Machine>::new();
    let overhead = "long".len() + 1 + 2;
    let value_overhead = 5;
    let put = |key_bytes, value_bytes| Command::PutLong { key_bytes, value_bytes };
    host.apply(put(crate::KEY_BYTES_MAX - overhead, crate::VALUE_BYTES_MAX - value_overhead)).unwrap();
    let before = host.state();
    let refused = host.apply(put(crate::KEY_BYTES_MAX - overhead + 1, 0)).unwrap_err();
    assert_eq!((refused.code, refused.name.as_str()), (Rejection::KEY_TOO_LONG, "key-too-long"));
    let refused = host.apply(put(1, crate::VALUE_BYTES_MAX)).unwrap_err();
    assert_eq!((refused.code, refused.name.as_str()), (Rejection::VALUE_TOO_LONG, "value-too-long"));
    assert_eq!(host.state(), before, "what a refused command wrote beside is gone");
    let refused = host.query::<Option<u32>>(Query::Long { key_bytes: crate::KEY_BYTES_MAX }).unwrap_err();
    assert_eq!(refused.code, Rejection::KEY_TOO_LONG);
}

#[test]
fn an_entry_crosses_in_one_call_until_it_holds_much() {
    let mut host = TestHost::<Machine>::new();
    let put = |value_bytes| Command::PutLong { key_bytes: 5, value_bytes };
    host.apply_batch((0..100).map(|_| put(1_000))).unwrap();
    assert_eq!(host.write_calls(), 1);
    host.apply_batch((0..100).map(|_| put(100_000))).unwrap();
    assert!((5..20).contains(&(host.write_calls() - 1)), "{} calls", host.write_calls() - 1);
    host.apply_batch([Command::Run { steps: Vec::new(), accepted: true }]).unwrap();
    let before = host.write_calls();
    host.apply_batch([Command::Run { steps: Vec::new(), accepted: false }]).unwrap();
    assert_eq!(host.write_calls(), before, "an entry without writes does not cross");
}
