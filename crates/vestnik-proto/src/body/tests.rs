use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn backend(body: &str) -> String {
    text_value(body.as_bytes(), &Author::Backend).into_owned()
}

fn check(body: &str, expected: &str) {
    assert_eq!(backend(body), expected);
}

fn client() -> Author {
    Author::Client(vestnik_core::ChannelId::from_bytes([7; 16]))
}

#[test]
fn q_126_k_012_valid_json_goes_out_byte_for_byte() {
    for json in [
        r#"{"a":1}"#,
        r#" { "b" : 1.0e+2 , "a" : [ 10000000000000000000001, -0, 1E5 ] } "#,
        r#"{"text":"$& $1 $$ \u0430 \/ \ud83d"}"#,
        r#""YmFzZTY0""#,
        "17",
        "null",
        "[]",
        "{\"a\":\"\u{7f}\u{10ffff}\"}",
    ] {
        check(json, json);
    }
}

#[test]
fn k_014_line_ends_between_tokens_are_compacted_and_number_text_and_key_order_stay() {
    check("{\n  \"b\" : 1.50,\r\n\t\"a\": \"x  \\n y\"\n}\n", r#"{"b":1.50,"a":"x  \n y"}"#);
    check("\n1", "1");
}

#[test]
fn k_014_separators_and_markers_in_strings_are_escaped() {
    check("{\"a\":\"x\u{2028}y\u{2029}\"}", r#"{"a":"x\u2028y\u2029"}"#);
    check(
        r##"["#!NGINXNME!#","\"#!NGINXNMS!#"]"##,
        r##"["\u0023!NGINXNME!#","\"\u0023!NGINXNMS!#"]"##,
    );
    check(r##"["#!NGINXNMS!#!NGINXNME!#"]"##, r##"["\u0023!NGINXNMS!\u0023!NGINXNME!#"]"##);
    check(r##"{"#!NGINXNME!#":"\\"}"##, r#"{"\u0023!NGINXNME!#":"\\"}"#);
}

#[test]
fn q_182_w_017_anything_else_becomes_a_json_string() {
    check("", r#""""#);
    check("plain \"text\"", r#""plain \"text\"""#);
    check("a\nb\u{2028}#!NGINXNME!#", r#""a\nb\u2028\u0023!NGINXNME!#""#);
    check("[1,]", r#""[1,]""#);
    check(r#"{"a":1},"mid":"9""#, r#""{\"a\":1},\"mid\":\"9\"""#);
    check("\u{feff}{}", "\"\u{feff}{}\"");
    assert_eq!(text_value(&[b'a', 0xff], &Author::Backend), "\"a\u{fffd}\"");
}

#[test]
fn m_055_a_javascript_literal_of_the_back_end_passes_with_spaces_for_line_ends() {
    check("{'a':'it\\'s }',\n'b':[1,\r{}]}\n", "{'a':'it\\'s }', 'b':[1, {}]} ");
    check("{'a':'#!NGINXNME!#'}", "{'a':'#\\u0021NGINXNME!#'}");
    check("{'a':'#!NGINXNMS!#!NGINXNME!#'}", "{'a':'#\\u0021NGINXNMS!#\\u0021NGINXNME!#'}");
    for broken in ["{'a':1", "{'a':1},'mid':{}", "{'a'}]", "{]}", "{'"] {
        assert!(is_json(&backend(broken)), "{broken} is no literal");
    }
}

#[test]
fn w_017_a_literal_of_a_client_or_in_a_json_array_becomes_a_string() {
    let literal = "{'a':1}";
    assert_eq!(text_value(literal.as_bytes(), &client()), r#""{'a':1}""#);
    assert_eq!(json_value(literal.as_bytes()), r#""{'a':1}""#);
}

#[test]
fn a_depth_bomb_neither_overflows_the_stack_nor_changes() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let core = if open == "[" { "" } else { "1" };
        let bomb = format!("{}{core}{}", open.repeat(200_000), close.repeat(200_000));
        assert!(backend(&bomb) == bomb, "valid JSON passes");
        assert!(!is_reserved(bomb.as_bytes()));
        assert!(is_json(&backend(&bomb[1..])), "the rest becomes a string");
        let spaced = format!("{bomb}\n");
        assert!(backend(&spaced) == bomb, "compacting does not recurse either");
    }
}

#[test]
fn k_051_events_of_the_modules_pull_and_online_are_reserved_however_they_are_spelled() {
    for body in [
        r#"{"module_id":"pull"}"#,
        r#" { "command" : {"a":[1,"}"]} , "module_id" : "PuLL" } "#,
        r#"{"module_id":"online","module_id":"im"}"#,
        r#"{"module_id":"im","module_id":"online"}"#,
        r#"{"module\u005fid":"p\u0075ll"}"#,
    ] {
        assert!(is_reserved(body.as_bytes()), "{body}");
    }
    for body in [
        r#"{"module_id":"im","command":"pull"}"#,
        r#"{"params":{"module_id":"pull"}}"#,
        r#"[{"module_id":"pull"}]"#,
        r#"{"module_id":["pull"]}"#,
        r#"{"a\":\"module_id\":\"pull":1}"#,
        "{'module_id':'pull'}",
        "",
    ] {
        assert!(!is_reserved(body.as_bytes()), "{body}");
    }
}

#[test]
fn of_a_repeated_member_the_last_counts() {
    let json = r#"{"extra":1, "x":{"extra":2}, "extra" : {"a":[3]} , "y":"extra"}"#;
    assert_eq!(member(json, "extra"), Some(r#"{"a":[3]}"#));
    assert_eq!(member("[\"extra\"]", "extra"), None);
    assert_eq!(member("{}", "extra"), None);
}

/// Text rich in what JSON, markers and literals are made of.
fn shards() -> impl Strategy<Value = String> {
    let shard = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        ":",
        ",",
        "\\",
        "#!NGINXNMS!#",
        "#!NGINXNME!#",
        "!NGINXNME!#",
        "\n",
        "\r",
        " ",
        "\u{2028}",
        "\u{2029}",
        "1",
        "-",
        "0",
        ".",
        "e",
        "true",
        "null",
        "\\u0041",
        "\\ud800",
        "a",
        "я",
        "\u{1}",
        "module_id",
        "extra",
        "#",
    ]);
    prop::collection::vec(shard, 0..30).prop_map(|shards| shards.concat())
}

/// Any JSON value, printed with white space.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        shards().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((shards(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .prop_map(|value| format!("{value:#}"))
}

proptest! {
    #[test]
    fn whatever_comes_in_cannot_break_or_forge_a_frame(body in shards(), from_client: bool) {
        let author = if from_client { client() } else { Author::Backend };
        let value = text_value(body.as_bytes(), &author);
        prop_assert!(is_clean(&value), "{value}");
        prop_assert!(is_json(&value) || (!from_client && is_literal(&value)), "{value}");
        prop_assert!(is_json(&json_value(body.as_bytes())));
        let _ = is_reserved(body.as_bytes());
        let _ = members(&body).take(1000).count();
    }

    #[test]
    fn rewriting_never_changes_a_value(json in json()) {
        let value = text_value(json.as_bytes(), &Author::Backend);
        prop_assert!(is_clean(&value), "{value}");
        prop_assert_eq!(
            serde_json::from_str::<Value>(&value).unwrap(),
            serde_json::from_str::<Value>(&json).unwrap()
        );
    }

    #[test]
    fn members_are_those_another_parser_finds(json in json()) {
        let Ok(Value::Object(expected)) = serde_json::from_str::<Value>(&json) else {
            prop_assert_eq!(members(&json).count(), 0);
            return Ok(());
        };
        for (key, value) in members(&json) {
            let value: Value = serde_json::from_str(value).unwrap();
            prop_assert_eq!(Some(&value), expected.get(&*key));
        }
        prop_assert_eq!(members(&json).count(), expected.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(body: Vec<u8>) {
        let _ = text_value(&body, &Author::Backend);
        let _ = json_value(&body);
        let _ = is_reserved(&body);
    }
}
