//! The language against what jq gives, and the bounds against what tries to break them.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::tests::json;
use crate::value::Value;

const BOUNDS: Bounds = Bounds { fuel: 20_000, depth: 300 };

struct Fixed;

impl Globals for Fixed {
    fn global(&self, name: &str) -> Result<Value, Failure> {
        match name {
            "context" => Ok(json(r#"{"a":1}"#)),
            "secrets" => Err(Failure::Forbidden("no secrets".into())),
            _ => Ok(Value::Null),
        }
    }
}

fn known(name: &str) -> bool {
    matches!(name, "context" | "input" | "secrets" | "workflow" | "task")
}

fn run(text: &str, input: &Value) -> Result<Value, Failure> {
    let filter = compile(text, &known).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    // Through its stored form, so that what is lost there is seen here.
    let stored = quorate_sdk::cbor::to_vec(&filter).unwrap();
    let filter: Filter = quorate_sdk::cbor::from_slice(&stored).unwrap();
    evaluate(&filter, input, &Fixed, &mut BOUNDS.clone())
}

fn check(cases: &[(&str, &str, &str)]) {
    for (text, input, expected) in cases {
        let all = format!("[{text}]");
        assert_eq!(run(&all, &json(input)), Ok(json(expected)), "{text} on {input}");
    }
}

#[test]
fn terms_give_what_jq_gives() {
    check(&[
        (".", "1", "[1]"),
        (".a.b", r#"{"a":{"b":2}}"#, "[2]"),
        (".a?", "[]", "[]"),
        (".[\"a\"], .\"a\"", r#"{"a":1}"#, "[1,1]"),
        (".[]", r#"{"b":2,"a":1}"#, "[1,2]"),
        (".[1:3], .[-1], .[:1]", "[1,2,3,4]", "[[2,3],4,[1]]"),
        (".[1:3]", "\"abcd\"", r#"["bc"]"#),
        ("..", "[[1]]", "[[[1]],[1],1]"),
        ("1 + 2 * 3 - 4 / 2, 7 % 3, -(1)", "null", "[5,1,-1]"),
        (
            "[1,2] + [3], {a:1} + {b:2}, {a:{b:1}} * {a:{c:2}}",
            "null",
            r#"[[1,2,3],{"a":1,"b":2},{"a":{"b":1,"c":2}}]"#,
        ),
        ("[1,2,3] - [2], \"a,b\" / \",\", \"ab\" * 2", "null", r#"[[1,3],["a","b"],"abab"]"#),
        ("1 < 2, \"a\" == \"a\", [] != {}, null <= false", "null", "[true,true,true,true]"),
        (".a and true, (false or .b), (.a | not)", r#"{"a":1,"b":null}"#, "[true,false,false]"),
        (".a // \"d\", (.b // 1), (empty // 2), (error(\"x\") // 3)", r#"{"b":0}"#, r#"["d",0,2,3]"#),
        (
            "if . then 1 else 2 end, if .x then 1 end, if false then 1 elif true then 2 else 3 end",
            "{}",
            "[1,{},2]",
        ),
        (". as [$a, {b: $c}] | $a + $c", r#"[1,{"b":2}]"#, "[3]"),
        (". as {$x, y: [$z]} | [$x, $z]", r#"{"x":1,"y":[2]}"#, "[[1,2]]"),
        ("reduce .[] as $x (0; . + $x)", "[1,2,3]", "[6]"),
        ("foreach .[] as $x (0; . + $x; [$x, .])", "[1,2]", "[[1,1],[2,3]]"),
        ("try error(\"x\") catch ., (try (1, error(\"y\"), 3) catch .)", "null", r#"["x",1,"y"]"#),
        ("label $out | 1, break $out, 2", "null", "[1]"),
        (
            "def f(g; $n): g + $n; f(.; 1), def fac: if . < 2 then 1 else . * (. - 1 | fac) end; 5 | fac",
            "3",
            "[4,120]",
        ),
        ("def outer: def inner: . + 1; inner * 2; outer", "3", "[8]"),
        (
            "\"a \\(.x) b\", @json \"v=\\(.)\", @uri \"q=\\(\"a b\")\"",
            r#"{"x":1}"#,
            r#"["a 1 b","v={\"x\":1}","q=a%20b"]"#,
        ),
    ]);
    check(&[(
        "$context.a, ({a: 3} | {a, \"b\": 1, (\"c\" + \"d\"): .a})",
        "null",
        r#"[1,{"a":3,"b":1,"cd":3}]"#,
    )]);
}

#[test]
fn changes_give_what_jq_gives() {
    check(&[
        (".a = 1, .a.b |= 5, (.x += 2)", r#"{"x":1}"#, r#"[{"a":1,"x":1},{"a":{"b":5},"x":1},{"x":3}]"#),
        (".[] |= . + 1", "[1,2]", "[[2,3]]"),
        ("(.[] | select(. > 1)) |= empty", "[1,2,3]", "[[1]]"),
        (".a //= 3, .b //= 3", r#"{"b":1}"#, r#"[{"a":3,"b":1},{"b":1}]"#),
        ("del(.a, .b[0])", r#"{"a":1,"b":[1,2]}"#, r#"[{"b":[2]}]"#),
        ("[paths]", r#"{"a":[1]}"#, r#"[[["a"],["a",0]]]"#),
        ("path(.a[0].b), [path(..)]", "null", r#"[["a",0,"b"],[[]]]"#),
        ("getpath([\"a\",\"b\"]), setpath([\"a\"]; 1), delpaths([[\"a\"]])", "{}", r#"[null,{"a":1},{}]"#),
        (
            "to_entries, with_entries(.value += 1), (to_entries | from_entries)",
            r#"{"a":1}"#,
            r#"[[{"key":"a","value":1}],{"a":2},{"a":1}]"#,
        ),
        (".[2:4] = [9]", "[1,2,3,4,5]", "[[1,2,9,5]]"),
        (
            "walk(if type == \"number\" then . + 1 else . end), pick(.a)",
            r#"{"a":1,"b":[2]}"#,
            r#"[{"a":2,"b":[3]},{"a":1}]"#,
        ),
        ("map_values(. + 1), map_values(empty)", r#"{"a":1}"#, r#"[{"a":2},{}]"#),
    ]);
}

#[test]
fn functions_give_what_jq_gives() {
    check(&[
        ("length, keys, has(\"a\"), add, any, all", r#"{"a":1,"b":2}"#, r#"[2,["a","b"],true,3,true,true]"#),
        (
            "sort, unique, min, max, reverse, (sort_by(-.) | first), group_by(. % 2)",
            "[3,1,2,1]",
            "[[1,1,2,3],[1,2,3],1,3,[1,2,1,3],3,[[2],[3,1,1]]]",
        ),
        ("flatten, flatten(1), (.[1] | transpose)", "[1,[[2],[3]]]", "[[1,2,3],[1,[2],[3]],[[2,3]]]"),
        (
            "split(\", \"), ascii_upcase, ltrimstr(\"a\"), rtrimstr(\"b\"), startswith(\"a\"), test(\"B\"; \"i\")",
            "\"a, b\"",
            r#"[["a","b"],"A, B",", b","a, ",true,true]"#,
        ),
        (
            "[match(\"b+\"; \"g\").offset], sub(\"b+\"; \"x\"), gsub(\"(?<l>[ac])\"; \"<\\(.l)>\")",
            "\"abbcb\"",
            r#"[[1,4],"axcb","<a>bb<c>b"]"#,
        ),
        (
            "[scan(\"[0-9]\")], capture(\"(?<y>[0-9]+)\"), [splits(\"-\")]",
            "\"12-3\"",
            r#"[["1","2","3"],{"y":"12"},["12","3"]]"#,
        ),
        (
            "first(range(10)), [limit(3; range(10))], [range(0; 10; 4)], last(range(3)), nth(1; range(5)), \
             [skip(2; range(4))]",
            "null",
            "[0,[0,1,2],[0,4,8],2,1,[2,3]]",
        ),
        (
            "until(. > 100; . * 2), [while(. < 5; . + 2)], first(repeat(. + 1) | select(. > 7)), \
             [recurse(if . < 3 then . + 1 else empty end)]",
            "1",
            "[128,[1,3],8,[1,2,3]]",
        ),
        ("tostring, tojson, (tojson | fromjson), type", "[1]", r#"["[1]","[1]",[1],"array"]"#),
        (
            "tonumber, (explode | implode), contains(\"2\"), inside(\"x12\"), indices(\"1\"), index(\"2\")",
            "\"12\"",
            r#"[12,"12",true,true,[0],1]"#,
        ),
        (
            "todate, (todate | fromdate), (gmtime | mktime), strftime(\"%Y-%j %a %H:%M\")",
            "1425599621",
            r#"["2015-03-05T23:53:41Z",1425599621,1425599621,"2015-064 Thu 23:53"]"#,
        ),
        ("@base64, (@base64 | @base64d), @html, @sh", "\"<a>\"", r#"["PGE+","<a>","&lt;a&gt;","'<a>'"]"#),
        ("@csv, @tsv, join(\"-\")", r#"[1,"a\"b",null]"#, r#"["1,\"a\"\"b\",","1\ta\"b\t","1-a\"b-"]"#),
        ("floor, ceil, round, fabs, sqrt, pow(.; 2)", "2.25", "[2,3,2,2.25,1.5,5.0625]"),
        ("IN(1, 2), isempty(empty), any(. == 1; .), all(true, false; .)", "1", "[true,true,true,false]"),
        (
            "[.[] | numbers], [.[] | strings], [.[] | values], map(scalars), toarray",
            r#"[1,"a",null]"#,
            r#"[[1],["a"],[1,"a"],[1,"a",null],[1,"a",null]]"#,
        ),
    ]);
}

#[test]
fn errors_are_told() {
    for (text, input, expected) in [
        (".a", "[]", "Cannot index array with \"a\""),
        ("error({a: 1})", "null", "{\"a\":1} (not a string)"),
        ("1 / 0", "null", "number and number cannot be divided because the divisor is zero"),
        (".[]", "1", "Cannot iterate over number"),
        ("{} | keys | path(1)", "null", "Invalid path expression: it does not lead into its input"),
        ("{a: 1} - 1", "null", "object and number cannot be subtracted"),
    ] {
        assert_eq!(run(text, &json(input)), Err(Failure::Error(expected.into())), "{text}");
    }
    assert_eq!(run("$secrets", &Value::Null), Err(Failure::Forbidden("no secrets".into())));
}

#[test]
fn what_reaches_outside_or_does_not_read_is_refused_when_compiled() {
    for (text, part) in [
        ("now", "no clock"),
        ("env.HOME", "no environment"),
        ("$ENV", "no variable"),
        ("input", "no input"),
        ("nothing_like_this", "no function"),
        ("$unknown", "no variable `$unknown`"),
        (".a |", "expected"),
        ("(1", "expected"),
        ("break $x", "no label"),
        ("@nope", "no format"),
        ("reduce . as $x (1)", "needs a start"),
    ] {
        let problem = compile(text, &known).unwrap_err();
        assert!(problem.contains(part), "{text}: {problem}");
    }
}

#[test]
fn what_never_ends_runs_out_of_fuel_and_try_does_not_help() {
    for text in [
        "def f: f; f",
        "[repeat(1)]",
        "[range(infinite)]",
        "until(false; .)",
        "[recurse(. + 1)]",
        "try (until(false; .)) catch 1",
        "(until(false; .)) // 1",
        "[limit(1000000000; repeat(1))] | length",
        "reduce range(1000000) as $x (0; . + 1)",
        "reduce range(40) as $x ([1]; . + .)",
        "[range(3000)] | [.[] as $a | .[] as $b | 1]",
        "[range(20000)] | combinations",
        "\"a\" * 1000000 | explode",
    ] {
        let failure = run(text, &Value::Int(0)).unwrap_err();
        assert!(matches!(failure, Failure::OutOfFuel | Failure::TooDeep), "{text}: {failure:?}");
    }
}

#[test]
fn what_nests_without_end_is_stopped() {
    assert_eq!(run("def f: [f]; f", &Value::Null), Err(Failure::TooDeep));
    assert_eq!(run("def f(g): f(g | g); f(.)", &Value::Null), Err(Failure::TooDeep));
    assert!(
        run("reduce range(1000) as $x (0; [.])", &Value::Null).unwrap_err().to_string().contains("nests")
    );
    assert!(
        run("reduce range(1000) as $x (null; {a: .})", &Value::Null)
            .unwrap_err()
            .to_string()
            .contains("nests")
    );
    let brackets = "(".repeat(1_000) + "1" + &")".repeat(1_000);
    assert!(compile(&brackets, &known).unwrap_err().contains("brackets"));
    assert!(compile(&"-".repeat(10_000), &known).unwrap_err().contains("signs"));
    assert!(compile(&format!("1{}", ",1".repeat(5_000)), &known).unwrap_err().contains("signs"));
    assert!(compile(&" ".repeat(20_000), &known).unwrap_err().contains("bytes"));
}

#[test]
fn the_fuel_that_is_left_is_told() {
    let filter = compile("[range(100)] | length", &known).unwrap();
    let mut bounds = BOUNDS;
    evaluate(&filter, &Value::Null, &Fixed, &mut bounds).unwrap();
    let used = BOUNDS.fuel - bounds.fuel;
    assert!((100..1_000).contains(&used), "{used}");
}

proptest! {
    #[test]
    fn no_text_takes_the_compiler_or_the_evaluation_down(text in "[-a-c.|,()\\[\\]{}\"$\\\\:;0-9+*/?@= ]{0,40}") {
        if let Ok(filter) = compile(&text, &known) {
            let input = json(r#"{"a":[1,{"b":"x"}],"c":"y"}"#);
            let first = evaluate(&filter, &input, &Fixed, &mut BOUNDS.clone());
            let second = evaluate(&filter, &input, &Fixed, &mut BOUNDS.clone());
            prop_assert_eq!(first, second);
        }
    }

    #[test]
    fn moments_survive_their_text(seconds in 0_u64..4_000_000_000) {
        let text = iso8601_millis(seconds * 1_000 + 7);
        prop_assert_eq!(parse_instant(&text), Some(seconds as i64));
    }
}
