//! Forms against the reference encodings, and both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use data_encoding::HEXLOWER;
use peerlane_cell::{Cell, encode};
use proptest::prelude::*;

use super::*;
use crate::limits::MAX_NESTING;

fn hex(text: &str) -> String {
    HEXLOWER.encode(&encode(&read(text).unwrap_or_else(|error| panic!("{text}: {error}")).cell))
}

#[test]
fn golden_forms() {
    // facts/convex.md 2.5: the reference implementation's encodings.
    for (text, encoding) in [
        ("nil", "00"),
        ("true", "b1"),
        ("0", "10"),
        ("-1", "11ff"),
        ("128", "120080"),
        ("-128", "1180"),
        ("9223372036854775807", "187fffffffffffffff"),
        ("9223372036854775808", "1909008000000000000000"),
        ("1.0", "1d3ff0000000000000"),
        ("\"Hello\"", "300548656c6c6f"),
        ("0x", "3100"),
        ("0xCafeBABE", "3104cafebabe"),
        ("foo", "3203666f6f"),
        (":foo", "3303666f6f"),
        ("#13", "ea0d"),
        ("#128", "ea8100"),
        ("[]", "8000"),
        ("[1, 2 3]", "8003110111021103"),
        ("[101 \"Hello\" #{}]", "80031165300548656c6c6f8300"),
        ("{:a 1 :b 2 :c 3}", "8203330163110333016111013301621102"),
        ("#{1 2 3}", "8303110211031101"),
        ("[0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]", "80111110801010110111021103110411051106110711081109110a110b110c110d110e110f"),
        ("[:Q 1 (+ 1 2) nil]", "8004330151110181031102110132012b00"),
        ("#[8003110111021103]", "8003110111021103"),
        ("\\a", "3c61"),
        ("\\newline", "3c0a"),
        ("{}", "8200"),
    ] {
        assert_eq!(hex(text), encoding, "{text}");
    }
}

#[test]
fn the_reference_peers_own_vectors() {
    let lines = include_str!("vectors.txt").lines().filter(|line| !line.starts_with(';'));
    let mut checked = 0;
    for line in lines {
        let [text, encoding, id] = line.split(" | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        let value = read(text).unwrap();
        assert_eq!((hex(text).as_str(), value.id().to_string().as_str()), (encoding, id), "{text}");
        assert_eq!(read(&print(&value, 10_000)).unwrap(), value, "{text}");
        checked += 1;
    }
    assert_eq!(checked, 70);
}

#[test]
fn what_a_form_stands_for() {
    for (text, same) in [
        ("'x", "(quote x)"),
        ("`(a ~b ~@c)", "(quasiquote (a (unquote b) (unquote-splicing c)))"),
        ("@convex.asset", "(resolve convex.asset)"),
        ("#12/f", "(lookup #12 f)"),
        ("a/b/c", "(lookup (lookup a b) c)"),
        ("(#12/f 1)", "((lookup #12 f) 1)"),
        ("; all\n[1 #_(no) 2 ; of it\n]", "[1 2]"),
        ("\"\\u0041\\101\\n\\\"\"", "\"AA\n\\\"\""),
        ("^:private x", "^{:private true} x"),
        ("1e3", "1000.0"),
        ("-0.5E-1", "-0.05"),
        ("{1 2 1 3}", "{1 3}"),
        ("\\u0041", "\\A"),
        ("\\u", "\\u"),
        ("-00012", "-12"),
    ] {
        assert_eq!(hex(text), hex(same), "{text}");
    }
    assert_eq!(read("-").unwrap().cell, read("-").unwrap().cell);
    assert!(matches!(read("-").unwrap().cell, Cell::Symbol(_)));
    assert!(matches!(read("*balance*").unwrap().cell, Cell::Symbol(_)));
    assert!(matches!(read("/").unwrap().cell, Cell::Symbol(_)));
    assert!(matches!(read("#%def").unwrap().cell, Cell::Symbol(_)));
}

#[test]
fn what_is_no_form_is_refused_and_the_place_told() {
    for text in [
        "",
        "(",
        "(]",
        ")",
        "1 2",
        "[1 2",
        "{1}",
        "\"abc",
        "\"\\q\"",
        "0x1",
        "0xzz",
        "#",
        "#99999999999999999999",
        "1a",
        "1.",
        "1.e5",
        ":",
        "\\",
        "#[80]",
        "#[80",
        "##Foo",
        "'",
        "@",
        "^1 x",
        "#_",
        "é",
        "#tag x",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    assert_eq!(read("(+ 1 2]"), Err(FormError::Syntax { at: 6, what: "a bracket isn't closed, or by another one" }));
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(read(&deep(MAX_NESTING)).is_ok());
    assert!(read(&deep(MAX_NESTING + 2)).is_err());
    assert!(read(&deep(100_000)).is_err());
    assert!(read(&"'".repeat(100_000)).is_err());
    assert_eq!(read(&" ".repeat(2 << 20)), Err(FormError::TooLong));
    assert!(read(&"9".repeat(9_864)).is_err(), "more than 4,096 bytes");
    assert!(read(&"9".repeat(9_863)).is_ok());
}

#[test]
fn printed_and_read_again() {
    for text in [
        "(+ 1 2)",
        "*balance*",
        "(transfer #12 1000)",
        "{:a [1 2.5 nil] \"b\" #{\\a \\space \\newline}}",
        "-170141183460469231731687303715884105728",
        "-9223372036854775809",
        "340282366920938463463374607431768211455",
        "##Inf",
        "##-Inf",
        "##NaN",
        "(quote (a b))",
        "0xcafebabe",
        "\"tab\\t quote\\\" \\377 é\"",
        "[0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32]",
    ] {
        let value = read(text).unwrap();
        assert_eq!(read(&print(&value, DEFAULT_PRINT)).unwrap().cell, value.cell, "{text}");
    }
    for text in ["(+ 1 2)", "*balance*", "(transfer #12 1000)", "\"a\\nb\"", "[1 2.5 1e100 :k]", "-9223372036854775809"] {
        assert_eq!(print(&read(text).unwrap(), 1000), text);
    }
}

#[test]
fn printing_is_bounded() {
    let long = read(&format!("[{}]", "1234567 ".repeat(5000))).unwrap();
    let text = print(&long, 100);
    assert!(text.len() < 150 && text.contains('…'), "{text}");
    let mut partial = read(&format!("[0x{}]", "00".repeat(200))).unwrap();
    partial.cells.0.clear();
    assert!(print(&partial, 1000).starts_with("[#missing["));
    // Each level names the one below twice: as a tree it has 2^100 leaves.
    let mut build = crate::value::Build::default();
    let mut node = read(&format!("0x{}", "00".repeat(200))).unwrap();
    for _ in 0..100 {
        let child = build.value(node).unwrap();
        let cell = build.vector(&[child.clone(), child.clone(), child.clone(), child.clone(), child]).unwrap();
        node = crate::Value::leaf(cell);
    }
    let node = build.finish(node.cell);
    assert!(print(&node, 10_000).len() < 20_000);
}

fn forms() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|i| i.to_string()),
        (any::<i128>(), any::<bool>()).prop_map(|(i, _)| i.to_string()),
        any::<f64>().prop_map(|f| if f.is_finite() { format!("{f:?}") } else { "##Inf".into() }),
        "[a-z*+!?<>=.][a-z0-9-]{0,5}",
        ":[a-z]{1,200}".prop_filter("names have at most 128 bytes", |name| name.len() <= 129),
        any::<String>().prop_map(|s| format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\""))),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|b| format!("0x{}", HEXLOWER.encode(&b))),
        any::<char>().prop_filter("controls have names", |c| !c.is_control()).prop_map(|c| format!("\\{c}")),
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        (prop::collection::vec(inner, 0..20), 0..4).prop_map(|(items, kind)| match kind {
            0 => format!("({})", items.join(" ")),
            1 => format!("[{}]", items.join(" ")),
            2 => format!("#{{{}}}", items.join(" ")),
            _ => format!("{{{}}}", items.iter().flat_map(|i| [i.as_str(), "1"]).collect::<Vec<_>>().join(" ")),
        })
    })
}

/// Found by fuzzing: a name that a lookup takes and that reads as a number or a word by itself.
#[test]
fn a_name_that_reads_as_something_else_is_none() {
    for text in ["u/-2", "(a/-2b c)", "@-1", "u/nil", "@true"] {
        assert!(read(text).is_err(), "{text}");
    }
    // As cells there are such symbols.
    for (hex, text) in [("32036e696c", "#name[6e696c]"), ("32022d32", "#name[2d32]"), ("32023a61", "#name[3a61]")] {
        assert_eq!(print(&read(&format!("#[{hex}]")).unwrap(), 1000), text);
    }
}

proptest! {
    #[test]
    fn any_form_is_printed_as_itself(text in forms()) {
        let value = read(&text).unwrap();
        let again = read(&print(&value, 1 << 20)).unwrap();
        prop_assert_eq!(again.cell, value.cell);
    }

    #[test]
    fn any_text_is_a_form_or_an_error(text in "\\PC{0,60}", brackets in "[\\[\\](){}#'\"\\\\0-9a:/^~@_;. -]{0,40}") {
        for text in [text, brackets] {
            if let Ok(value) = read(&text) {
                let _ = print(&value, 1000);
            }
        }
    }
}
