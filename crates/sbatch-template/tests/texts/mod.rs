//! Texts that want out of their places, for tests of scripts. `PROPTEST_CASES` asks for more of them.

use proptest::prelude::*;

/// So many cases, unless the environment asks for more.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default()
    } else {
        ProptestConfig::with_cases(usual)
    }
}

/// What stays of a text in a script.
pub(crate) fn kept(text: &str) -> String {
    let control = |c: &char| !((*c < ' ' && !"\t\n\r".contains(*c)) || *c == '\x7f');
    let line_end = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    text.chars()
        .filter(control)
        .map(|c| if line_end(c) { ' ' } else { c })
        .collect()
}

/// Texts made of what shells and sbatch find interesting.
pub(crate) fn hostile() -> impl Strategy<Value = String> {
    let bits = prop::sample::select(vec![
        "'",
        "\"",
        "`",
        "$(touch bad)",
        "`touch bad`",
        "${IFS}",
        "$",
        "\\",
        "\n",
        "\r\n",
        "\t",
        " ",
        "#",
        ";",
        "&",
        "|",
        "<",
        ">",
        "touch bad",
        "(",
        ")",
        "{",
        "}",
        "!",
        "*",
        "?",
        "[",
        "]",
        "~",
        "=",
        "%",
        "-",
        "--uid=0",
        "#SBATCH --wrap=id",
        "EOF",
        "CLEARML_EOF",
        "\nCLEARML_EOF\n",
        "${CLEARML_TASK.id}",
        "$${CLEARML_TASK.id}",
        "a",
        "2",
        ":",
        ",",
        "é",
        "\u{2028}",
        "\0",
        "\x1b",
        "\u{85}",
        "\u{a0}",
        "@",
        "^",
        "+",
        "/",
        "x y",
    ]);
    prop_oneof![
        4 => prop::collection::vec(bits, 0..10).prop_map(|bits| bits.concat()),
        1 => any::<String>(),
        1 => "\\PC{0,30}",
    ]
}
