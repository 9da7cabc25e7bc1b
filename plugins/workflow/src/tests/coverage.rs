//! The coverage table of the README, made of the samples.

use std::collections::BTreeMap;

use super::harness::samples;

/// Where the table stands in the README.
const MARKS: [&str; 2] = ["<!-- coverage: start -->\n", "<!-- coverage: end -->"];
const README: &str = "README.md";

/// Everything the specification has, with what is to be said of it. Those with samples are supported.
const ROWS: &[(&str, &str)] = &[
    ("document", ""),
    ("evaluate.language", "jq only"),
    ("evaluate.mode", ""),
    ("expressions", "jq within bounds, see below"),
    ("$context, $input, $output", "the context starts as `{}`"),
    ("$task", "the definition's own keys are there as well, for extensions"),
    ("$workflow", ""),
    ("$runtime", ""),
    ("$secrets", "only refused: replicated state has no place for secrets; workers resolve their names"),
    ("$authorization", "always null: workers authenticate"),
    ("input.schema", "JSON Schema in the definition; what would have to be fetched is refused"),
    ("input.from", ""),
    ("output.as", ""),
    ("output.schema", ""),
    ("export.as", ""),
    ("export.schema", ""),
    ("if", "on the raw input; a skipped task's `then` does not count"),
    ("then", ""),
    ("timeout", ""),
    ("duration", "up to ten years; months and years have no fixed length and are refused"),
    ("metadata", ""),
    ("do", ""),
    ("set", ""),
    ("switch", ""),
    ("for", ""),
    ("for.while", ""),
    ("fork", ""),
    ("fork.compete", ""),
    ("try", "without `do` and `retry`, a caught error leaves the input as output"),
    ("catch.errors", ""),
    ("catch.as", ""),
    ("catch.when, catch.exceptWhen", ""),
    ("retry", "when trying again ends without `do`, the last error goes on"),
    ("retry.backoff", ""),
    ("retry.jitter", "drawn from the entry's seed"),
    ("retry.limit.attempt.count", "counts retries, not the first attempt"),
    ("retry.limit.attempt.duration", ""),
    ("retry.limit.duration", ""),
    ("raise", ""),
    ("wait", ""),
    ("emit", "to watchers, and to cases of the group that listen"),
    ("listen.to.one", ""),
    ("listen.to.all", ""),
    ("listen.to.any", ""),
    ("listen.to.any.until", ""),
    ("listen.read", "`raw` is `data`: events arrive as JSON"),
    ("listen.foreach", ""),
    ("listen.correlate", ""),
    ("event filter", ""),
    ("call http", "a work item `http`"),
    ("call grpc", "a work item `grpc`"),
    ("call openapi", "a work item `openapi`"),
    ("call asyncapi", "a work item `asyncapi`; the worker subscribes"),
    ("call of a custom function", "a work item of the function's name"),
    ("uri template", ""),
    ("run container", "a work item `run:container`"),
    ("run script", "a work item `run:script`"),
    ("run shell", "a work item `run:shell`"),
    ("run workflow", "a case within the case"),
    ("run.await", ""),
    ("run.return", ""),
    ("use.authentications", ""),
    ("use.catalogs", "workers resolve them"),
    ("use.errors", ""),
    ("use.extensions", ""),
    ("use.functions", "a function must not call itself"),
    ("use.retries", ""),
    ("use.secrets", "names only"),
    ("use.timeouts", ""),
    ("schedule.every", ""),
    ("schedule.cron", "five fields, UTC"),
    ("schedule.after", "the first case is started by hand"),
    ("schedule.on", "`until` is ignored"),
];

/// Samples of these are tests of their own, since no case of theirs is started by hand.
const ELSEWHERE: [&str; 4] = ["schedule.every", "schedule.cron", "schedule.after", "schedule.on"];
/// What is only refused.
const REFUSED_ONLY: [&str; 1] = ["$secrets"];

fn table() -> String {
    let mut counts: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for sample in samples() {
        let count = counts.entry(sample.of().to_owned()).or_default();
        count[usize::from(!sample.is_positive())] += 1;
    }
    let mut table = String::from(
        "| task or property | supported | accepted | refused | remark |\n|---|---|---|---|---|\n",
    );
    for (name, remark) in ROWS {
        let [mut good, bad] = counts.remove(*name).unwrap_or_default();
        good += usize::from(ELSEWHERE.contains(name));
        assert!(bad > 0 || *name == "metadata", "`{name}` has no sample that is refused");
        let is_refused = REFUSED_ONLY.contains(name);
        assert_eq!(good == 0, is_refused, "`{name}` has no sample that is accepted");
        let supported = if is_refused { "no" } else { "yes" };
        table += &format!("| {name} | {supported} | {good} | {bad} | {remark} |\n");
    }
    assert!(counts.is_empty(), "samples of what the table lacks: {:?}", counts.keys());
    table
}

#[test]
fn the_readme_has_the_table_that_the_samples_make() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(README);
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(MARKS[0]).unwrap();
    let (found, after) = rest.split_once(MARKS[1]).unwrap();
    let table = table();
    if std::env::var_os("QUORATE_WRITE_COVERAGE").is_some() {
        let written = format!("{before}{}{table}{}{after}", MARKS[0], MARKS[1]);
        std::fs::write(&path, written).unwrap();
        return;
    }
    assert_eq!(
        found, table,
        "write it with QUORATE_WRITE_COVERAGE=1 cargo test -p quorate-workflow coverage"
    );
}
