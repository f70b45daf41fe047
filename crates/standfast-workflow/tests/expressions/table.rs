//! What expressions yield, in this process and in a child.

use serde_json::{Value, json};
use standfast_workflow::Trial;

use super::{config, told};

fn order() -> Value {
    json!({
        "id": 17,
        "name": "Ünï \"quoted\" <a&b>",
        "paid": false,
        "none": null,
        "items": [
            {"sku": "b", "price": 2.5, "count": 2, "tags": ["x", "y"]},
            {"sku": "a", "price": 10, "count": 1, "tags": []},
            {"sku": "c", "price": 0.1, "count": 3},
        ],
        "text": "one,two,,three",
        "padded": "  x ",
        "digits": "42",
        "nested": {"a": {"b": [1, 2, [3, null]]}},
        "big": 9_007_199_254_740_993_i64,
        "smallest": i64::MIN,
        "largest": u64::MAX,
        "when": "2026-03-01T09:30:00Z",
        "empty": [],
        "object": {"k": 1, "a": 2},
    })
}

/// Each is cheap, and has this outcome. `$who` is "me", `$limits` is `{"max": 3}`.
const CHEAP: &[(&str, &str)] = &[
    (".id", "17"),
    (".nested.a.b[2][0]", "3"),
    (".nested[\"a\"].b[-1]", "[3,null]"),
    (".nested.a.b[1:]", "[2,[3,null]]"),
    (".nested.a.b[:-1]", "[1,2]"),
    (".text[0:3]", "\"one\""),
    (".missing", "null"),
    (".missing.deeper", "null"),
    (".id.x", "raised: cannot index 17 with \"x\""),
    (".id.x?", "null"),
    ("(.id.x)?", "null"),
    (".id[0]?", "null"),
    ("try .id.x catch .", "\"cannot index 17 with \\\"x\\\"\""),
    ("try error({code: 7}) catch .code", "7"),
    ("error(\"boom\")", "raised: boom"),
    ("error({code: 7})", "raised: {\"code\":7}"),
    ("error(null)", "raised: null"),
    (".items[]", "error: it yields more than one value: put it in [ ] for an array of them"),
    ("[.items[].sku]", "[\"b\",\"a\",\"c\"]"),
    ("[.items[] | .price]", "[2.5,10,0.1]"),
    ("[.items[].price] | add", "12.6"),
    ("{id: .id, total: ([.items[].price] | add)}", "{\"id\":17,\"total\":12.6}"),
    (
        "{id, name: .digits, \"x y\": 1, (.digits): 2, $who}",
        "{\"42\":2,\"id\":17,\"name\":\"42\",\"who\":\"me\",\"x y\":1}",
    ),
    ("{(.id): 1}", "raised: the keys of an object must be texts"),
    ("[{a: (1, 2), b: (3, 4)}] | length", "4"),
    ("\"order-\\(.id) of \\($who)\"", "\"order-17 of me\""),
    ("\"\\(.items[1])\"", "\"{\\\"count\\\":1,\\\"price\\\":10,\\\"sku\\\":\\\"a\\\",\\\"tags\\\":[]}\""),
    (
        "\"\\(1,2)-\\(3,4)\" | ascii_upcase",
        "error: it yields more than one value: put it in [ ] for an array of them",
    ),
    ("[\"\\(1,2)-\\(3,4)\"]", "[\"1-3\",\"1-4\",\"2-3\",\"2-4\"]"),
    ("@json \"x=\\(.empty)\"", "\"x=[]\""),
    ("@html \"<b>\\(.name)</b>\"", "\"<b>Ünï &quot;quoted&quot; &lt;a&amp;b&gt;</b>\""),
    ("@uri \"?q=\\(.name)\"", "\"?q=%C3%9Cn%C3%AF%20%22quoted%22%20%3Ca%26b%3E\""),
    (".digits | @base64", "\"NDI=\""),
    ("$who", "\"me\""),
    ("$limits.max + 1", "4"),
    ("$limits as {max: $m} | $m", "3"),
    (".nested.a.b as [$x, $y] | $x + $y", "3"),
    (".id as $x | [.items[] | .count + $x]", "[19,18,20]"),
    ("[.items[] as $i | .id + $i.count]", "[19,18,20]"),
    ("1 + 2 - 4", "-1"),
    ("7 / 2", "3.5"),
    ("6 / 2", "3.0"),
    ("1 / 0", "1.7976931348623157e+308"),
    ("0 / 0", "null"),
    ("7 % 3", "1"),
    ("-7 % 3", "-1"),
    ("5 % 0", "raised: cannot calculate 5 % 0"),
    ("-(.id)", "-17"),
    ("-(.smallest)", "9223372036854775808"),
    ("(.smallest | length)", "9223372036854775808"),
    (".big + 1", "9007199254740994"),
    (".largest", "18446744073709551615"),
    (".largest + 1", "1.8446744073709552e+19"),
    ("1.10", "1.1"),
    ("100000000000000000000", "1e+20"),
    (".id * 2", "34"),
    (".digits * 3", "\"424242\""),
    ("\"a\" + 1", "raised: cannot calculate \"a\" + 1"),
    ("\"a\" + \"b\"", "\"ab\""),
    ("[1] + [2]", "[1,2]"),
    ("{a: 1} + {b: 2}", "{\"a\":1,\"b\":2}"),
    ("null + 1", "1"),
    ("[1, 2, 1, 3] - [1]", "[2,3]"),
    (".text / \",\"", "[\"one\",\"two\",\"\",\"three\"]"),
    (".paid or .id", "true"),
    (".paid and error(\"never\")", "false"),
    (".paid | not", "true"),
    (".none // \"else\"", "\"else\""),
    (".paid // .none // 5", "5"),
    ("[.items[].tags[]?] // \"none\"", "[\"x\",\"y\"]"),
    (".id > 3 and .id <= 17", "true"),
    (".items == .items", "true"),
    ("{} < []", "false"),
    ("[null, true, 1, \"a\", [], {}] | sort == .", "true"),
    ("if .paid then 1 elif .id == 17 then 2 else 3 end", "2"),
    ("if .paid then 1 end | type", "\"object\""),
    (
        "if (true, false) then 1 else 2 end",
        "error: it yields more than one value: put it in [ ] for an array of them",
    ),
    ("empty", "null"),
    ("[.items[] | select(.price > 1) | .sku]", "[\"b\",\"a\"]"),
    (".items | map(.count) | add", "6"),
    (".items | map(select(.tags)) | length", "2"),
    (".items | map({(.sku): .price}) | add", "{\"a\":10,\"b\":2.5,\"c\":0.1}"),
    (".object | map_values(. + 1)", "{\"a\":3,\"k\":2}"),
    (".object | keys", "[\"a\",\"k\"]"),
    (".object | to_entries", "[{\"key\":\"a\",\"value\":2},{\"key\":\"k\",\"value\":1}]"),
    (
        "[{key: \"a\", value: 1}, {k: \"b\", v: 2}, {name: \"c\", value: false}, {key: 3}] | from_entries",
        "{\"3\":null,\"a\":1,\"b\":2,\"c\":false}",
    ),
    (".object | with_entries(select(.value > 1))", "{\"a\":2}"),
    (".items | sort_by(.price) | map(.sku) | join(\"\")", "\"cba\""),
    (".items | group_by(.count > 1) | map(length)", "[1,2]"),
    (".items | unique_by(.count > 1) | length", "2"),
    (
        ".items | min_by(.price).sku, max_by(.price).sku",
        "error: it yields more than one value: put it in [ ] for an array of them",
    ),
    ("[.items | min_by(.price).sku, max_by(.price).sku]", "[\"c\",\"a\"]"),
    ("[3, 1, 2] | [min, max, first, last, (sort | reverse)]", "[1,3,3,2,[3,2,1]]"),
    ("[1, 2, 1] | unique", "[1,2]"),
    ("[] | [min, max, add, first, last]", "[null,null,null,null,null]"),
    (".items | any(.price > 5)", "true"),
    (".items | all(.price > 5)", "false"),
    ("any(.items[]; .sku == \"a\")", "true"),
    ("[true, false] | [any, all]", "[true,false]"),
    ("first(.items[] | select(.count == 1)).sku", "\"a\""),
    ("[limit(2; .items[].sku)]", "[\"b\",\"a\"]"),
    ("isempty(.empty[])", "true"),
    ("[.items, .object, .text, .none, .id | length]", "[3,2,14,0,17]"),
    ("true | length", "raised: true has no length"),
    ("[.[] | type] | unique", "[\"array\",\"boolean\",\"null\",\"number\",\"object\",\"string\"]"),
    (".digits | tonumber", "42"),
    ("\" -1.5e2 \" | tonumber", "-150.0"),
    (".name | tonumber", "raised: \"Ünï \\\"quoted\\\" <a&b>\" cannot be parsed as a number"),
    ("\"[[[[\" | tonumber", "raised: \"[[[[\" cannot be parsed as a number"),
    ("\"true\" | toboolean", "true"),
    (".id | tostring", "\"17\""),
    (".empty | tojson", "\"[]\""),
    (".text | split(\",\") | length", "4"),
    ("[1, null, \"a\", true] | join(\"-\")", "\"1--a-true\""),
    ("[] | join(\"-\")", "\"\""),
    ("[1, [2]] | join(\"-\")", "raised: cannot calculate \"1-\" + [2]"),
    (
        "\"aba\" | [ltrimstr(\"a\"), rtrimstr(\"a\"), trimstr(\"a\"), ltrimstr(\"x\"), ltrimstr(1)]",
        "[\"ba\",\"ab\",\"b\",\"aba\",\"aba\"]",
    ),
    ("1 | ltrimstr(\"a\")", "1"),
    ("\"éaé\" | ltrimstr(\"é\") | rtrimstr(\"é\")", "\"a\""),
    (".padded | trim", "\"x\""),
    ("\"abc\" | ltrimstr(\"a\") | rtrimstr(\"c\")", "\"b\""),
    ("\"abc\" | startswith(\"ab\") and endswith(\"bc\")", "true"),
    (".name | ascii_downcase", "\"Ünï \\\"quoted\\\" <a&b>\""),
    (".object | has(\"k\")", "true"),
    (".items | has(3)", "false"),
    ("\"k\" | in({k: 1})", "true"),
    ("\"foobar\" | contains(\"oba\")", "true"),
    ("{a: [1, {b: 2}]} | contains({a: [{b: 2}]})", "true"),
    ("[1] | inside([1, 2])", "true"),
    (".sku | IN(\"a\", \"b\")", "false"),
    ("\"a,b,a\" | [indices(\"a\"), index(\"b\"), rindex(\"a\")]", "[[0,4],2,4]"),
    ("now", "1772357399.125"),
    ("now | todate", "\"2026-03-01T09:29:59.125Z\""),
    (".when | fromdate", "1772357400"),
    ("[1.2, -1.2, 1.5] | map(floor, ceil, round)", "[1,2,1,-2,-1,-1,1,2,2]"),
    ("[.items[] | select(.sku | IN(\"a\", \"c\")).count] | add", "4"),
    (".items | map(.sku + \":\" + (.count | tostring)) | join(\", \")", "\"b:2, a:1, c:3\""),
    (".nested | toarray | length", "1"),
];

#[test]
fn cheap_expressions_yield_the_same_here_and_in_a_child() {
    let trial = Trial::new(config());
    let (who, limits, order) = (json!("me"), json!({"max": 3}), order());
    let variables = [("limits", &limits), ("unused", &order), ("who", &who)];
    let mut wrong = String::new();
    let mut same = 0;
    for (text, expected) in CHEAP {
        let here = trial.evaluate_here(text, &order, &variables).map_or("not cheap".to_owned(), told);
        let there = told(trial.evaluate_in_child(text, &order, &variables));
        if here != *expected || here != there {
            wrong
                .push_str(&format!("{text}\n  expected {expected}\n  here     {here}\n  there    {there}\n"));
        }
        same += usize::from(here == there);
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(same >= 100, "{same}");
}

/// What goes to a child, with its outcome: as `jq` 1.7 has it, unless it is said otherwise.
const OTHERS: &[(&str, &str)] = &[
    ("reduce .items[] as $i (0; . + $i.count)", "6"),
    ("[.items[] | .price * .count]", "[5.0,10,0.30000000000000004]"),
    ("[foreach (1, 2, 3) as $x (0; . + $x)]", "[1,3,6]"),
    ("[range(3)]", "[0,1,2]"),
    ("def f(x): x * 2; f(.id)", "34"),
    ("[.. | numbers] | length", "15"),
    ("first(range(10; 20))", "10"),
    ("label $out | foreach (1, 2) as $x (0; $x; if . == 2 then ., break $out else empty end)", "2"),
    (".object * {b: 3}", "{\"a\":2,\"b\":3,\"k\":1}"),
    (".id = 3 | .id", "3"),
    (".id |= . + 1 | .id", "18"),
    (".object.a += 1 | .object", "{\"a\":3,\"k\":1}"),
    (".object | with_entries({key: \"_\\(.key)\", value})", "{\"_a\":2,\"_k\":1}"),
    (".object | with_entries(.value += 1)", "{\"a\":3,\"k\":2}"),
    (".text | test(\"tw[o]\")", "true"),
    (".text | [scan(\"[a-z]+\")]", "[\"one\",\"two\",\"three\"]"),
    (".text | gsub(\",+\"; \"-\")", "\"one-two-three\""),
    (".text | capture(\"(?<first>[a-z]+),\").first", "\"one\""),
    (".text | [splits(\",\")]", "[\"one\",\"two\",\"\",\"three\"]"),
    ("\"[1, {\\\"a\\\": 2}]\" | fromjson", "[1,{\"a\":2}]"),
    ("[1, [2, [3]]] | flatten", "[1,2,3]"),
    ("[[1, 2], [3]] | transpose", "[[1,3],[2,null]]"),
    ("[paths] | length", "40"),
    ("{a: {b: 1}} | [leaf_paths]", "[[\"a\",\"b\"]]"),
    ("{a: {b: 1}} | getpath([\"a\", \"b\"])", "1"),
    ("{a: 1, b: 2, c: 3} | del(.a, .b)", "{\"c\":3}"),
    ("[1, 2, 3, 4] | del(.[0, 2])", "[2,4]"),
    ("[1, 2, 3, 4] | del(.[] | select(. > 2))", "[1,2]"),
    ("{a: 1} | del(.x, .y.z)", "{\"a\":1}"),
    ("[1, 2] | del(.[5], .[-1])", "[1]"),
    ("[1, 2, 3] | del(.[1:])", "[1]"),
    ("{a: [1, 2]} | delpaths([[\"a\", 0], [\"a\", 1]])", "{\"a\":[]}"),
    ("null | setpath([\"a\", \"b\"]; 1)", "{\"a\":{\"b\":1}}"),
    ("{a: 1} | setpath([\"b\", 1]; 2)", "{\"a\":1,\"b\":[null,2]}"),
    ("{} | pick(.a.b)", "{\"a\":{\"b\":null}}"),
    ("{a: 1, b: {c: 2, d: 3}} | pick(.b.c)", "{\"b\":{\"c\":2}}"),
    ("[[1, \"a\\\"b\", null, true], [1.5]] | map(@csv)", "[\"1,\\\"a\\\"\\\"b\\\",,true\",\"1.5\"]"),
    ("[\"a\\tb\", 1, \"c\\\\\"] | @tsv", "\"a\\\\tb\\t1\\tc\\\\\\\\\""),
    ("[[]] | @csv", "raised: [] cannot stand in a row of csv"),
    ("\"it's\" | @sh", "\"'it'\\\\''s'\""),
    ("INDEX(.items[]; .sku) | keys", "[\"a\",\"b\",\"c\"]"),
    (".items | INDEX(.count) | keys", "[\"1\",\"2\",\"3\"]"),
    ("IN(.items[].sku; \"z\", \"a\")", "true"),
    ("[65, 66] | implode", "\"AB\""),
    ("65 | ascii", "\"A\""),
    ("\"a\" | ascii_downcase | explode", "[97]"),
    ("[1, 2] | combinations?", "null"),
    ("[[1, 2], [3, 4]] | [combinations]", "[[1,3],[1,4],[2,3],[2,4]]"),
    ("2 | [recurse(if . < 4 then . + 1 else empty end)]", "[2,3,4]"),
    ("[1, 2] | walk(if type == \"number\" then . + 1 else . end)", "[2,3]"),
    ("input_line_number?", "raised: does not compile"),
    ("1772357400 | gmtime | mktime", "1772357400"),
    ("1772357400 | strftime(\"%Y-%m-%d\")", "\"2026-03-01\""),
    ("\"2026-03-01\" | strptime(\"%Y-%m-%d\") | mktime", "1772323200"),
    ("\"YQ==\" | @base64d", "\"a\""),
    ("\"/w==\" | @base64d", "\"\u{fffd}\""),
    ("\"a\" | tobytes", "\"a\""),
    ("[1, 2, 3] | bsearch(2)", "1"),
    ("[splits(\"a\")]", "raised: cannot use"),
    ("until(. == null; null)", "null"),
    ("error", "raised: {\"big\":9007199254740993,"),
];

#[test]
fn all_others_are_evaluated_by_a_child() {
    let trial = Trial::new(config());
    let order = order();
    let mut wrong = String::new();
    for (text, expected) in OTHERS {
        let outcome = told(trial.evaluate(text, &order, &[]));
        let is_as_expected =
            outcome == *expected || (expected.starts_with("raised") && outcome.starts_with(expected));
        if !is_as_expected {
            wrong.push_str(&format!("{text}\n  expected {expected}\n  outcome  {outcome}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_filter_takes_the_variables_that_it_mentions() {
    let trial = Trial::new(config());
    let value = json!(1);
    let known = ["a", "b", "c", "d", "e"].map(|name| (name, &value));
    let mentioned = |text: &str| trial.mentioned(text, &known).unwrap().join(" ");
    assert_eq!(mentioned("$c + $a"), "a c");
    assert_eq!(mentioned(". as {($e): [$x]} | \"\\({$b}) \\($d[$a:])\""), "a b d e");
    assert_eq!(mentioned("def f(x): x + $d; reduce $a[] as $x ($b; f($c) // $e)"), "a b c d e");
    assert_eq!(mentioned("if $a then try $b catch $c else -$d end | $e?"), "a b c d e");
    assert_eq!(mentioned("."), "");
    assert!(trial.mentioned("$f", &known).is_err());
}

#[test]
fn what_is_large_or_deep_goes_to_a_child_and_yields_the_same() {
    let trial = Trial::new(config());
    let large = json!({"items": (0..10_000).map(|number| json!({"n": number})).collect::<Vec<_>>()});
    assert_eq!(told(trial.evaluate("[.items[].n] | add", &large, &[])), "49995000");
    assert_eq!(trial.idle_process_ids().len(), 1);
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(told(trial.evaluate(".[0][0][0] | length", &deep, &[])), "1");
    let deeper = json!([deep]);
    assert_eq!(
        told(trial.evaluate("length", &deeper, &[])),
        "error: it is given, or yields, values within more than 100 others"
    );
    let huge = json!(["x".repeat(17 << 20)]);
    assert_eq!(
        told(trial.evaluate("length", &huge, &[])),
        "error: it is given, or yields, more than 16777216 bytes"
    );
}
