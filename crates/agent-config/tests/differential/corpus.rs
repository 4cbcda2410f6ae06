//! The files: written by hand, each for one habit of the format, and generated from what both readers take.

/// What is expected of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expect {
    /// Both read the same, or both refuse.
    Same,
    /// We read something else, for this reason.
    Otherwise(&'static str),
}

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) text: String,
    pub(crate) expect: Expect,
}

/// Files that others include.
pub(crate) const INCLUDED: &[(&str, &str)] = &[
    (
        "one.conf",
        "one: 1\nshared { from_one: yes }\nurl: \"http://h:8008\"",
    ),
    (
        "two.conf",
        "include \"one.conf\"\ntwo: ${one}\nshared.from_two: [1, 2]",
    ),
    ("uses.conf", "uses: ${given}/x"),
];

/// Files on which both agree.
const SAME: &[&str] = &[
    // Comments and separators.
    "",
    "# only a comment",
    "a: 1 # x\n// y\nb = 2",
    "a: 1, b: 2,\n c: 3,",
    "{a: 1, b: 2}",
    "{\n  a: 1\n  b: {c: 2}\n}\n",
    "a: https://x/y#z\nb: https://x/y",
    "a = x=1",
    "a { b = c }\n# end",
    "a: [1, 2, 3,]\nb: [\n  1\n  2\n]\nc: [1\n, 2\n,\n]",
    // Keys.
    "a.b.c: 1\na.b.d: 2\na.e: 3",
    "\"a.b\": 1",
    "a b: 1\nx-y_z/w: 2",
    "1: x\n2.5: y",
    "a { b.c: 1 }\na { b.d: 2 }\na.b.c: 3",
    "ä_ß: 1",
    // Objects.
    "a {b: 1}\na {c: 2}\na {b: 3}",
    "a: {b: 1}\na: 5",
    "a: {b: 1} {c: 2}",
    "a: {}\nb: []",
    "a: {x: {y: {z: 1}}}\na.x.y.w: 2",
    "a: [{b: 1}, {c: [1, {d: 2}]}]",
    // Lists.
    "a: [1]\na: [2, 3]",
    "a: [1] [2]",
    "a: [1, 2]\na += [3]",
    "b += [1]\nc: 2",
    "{a: 1,, b: 2,}",
    "a..b: 1\nc.: 2",
    "a: [\"x y\", z w, 1.5, true, null]",
    "a: [\n  \"one\"\n  two\n  3\n]",
    // Texts.
    "a: \"x # y // z\"\nb: \"\"",
    "a: \"tab\\there \\\\ \\\"quoted\\\" line\\nbreak\"",
    "a: \"\"\"raw \\n \"quoted\" text\nsecond line\"\"\"",
    "a: \"\"\"x\"\"\"\"",
    "a: ~/.clearml/venvs-builds\nb: /path with/blanks inside   ",
    "a: it's (fine) <a>|b%c;d",
    "a: unquoted text goes on\nb: next",
    "a: \"x\" y\nb: x \"y\"",
    "a: \"${b}\"\nb: 1",
    "a: p\\=q\\#r\\!s",
    "a: \"ünïcödé → ✓\"\nb: ünquoted",
    "a: \"<20.2 ; python_version < '3.10'\"",
    "a: x$\nb: 1",
    // Numbers and literals.
    "a: 1\nb: -2\nc: 1.5\nd: .5\ne: 1e3\nf: -1.5E-2\ng: 007\nh: +3",
    "a: 1.2.3\nb: 0x10\nc: 10GB\nd: 1_000\ne: 5.\nf: 12abc",
    "a: true\nb: False\nc: TRUE\nd: yes\ne: off",
    "a: null\nb: Null\nc: None\nd: nullable\ne: trueish",
    "a: \"1\"\nb: \"true\"\nc: \"null\"",
    "a: 9007199254740993\nb: 0.1",
    // Durations and sizes stay texts inside of a document.
    "a: 5m\nb: 10 seconds\nc: 2h\nd: 10GB\ne: end",
    "a: [5m, 1 day]\nb: x",
    // Substitutions.
    "a: ${b}\nb: 1",
    "b: x\na: ${b}/y",
    "b { c: 1 }\na: ${b.c}\nd: ${b}",
    "a: ${DIFF_TEXT}\nb: x ${DIFF_TEXT} y",
    "a: ${DIFF_NUMBER}",
    "DIFF_TEXT: inside\na: ${DIFF_TEXT}",
    "a: ${?NOT_SET_ANYWHERE}\nb: 1",
    "a: 5\na: ${?NOT_SET_ANYWHERE}",
    "a: 5\na: ${?DIFF_TEXT}",
    "a: [1]\na: ${a} [2]",
    "base: {x: 1, y: 2}\nc: ${base} {y: 3}",
    "a: ${NOT_SET_ANYWHERE}",
    "a: ${b}\nb: ${a}",
    "l: [1, 2]\nm: ${l} [3]",
    "a: [${b}, ${b}]\nb: x",
    // Appending to texts.
    "a: x\na += y",
    // Includes.
    "include \"one.conf\"\nb: 2",
    "include \"two.conf\"",
    "nested { include \"one.conf\" }\nb: ${nested.one}",
    "include file(\"one.conf\")",
    "include \"missing.conf\"\na: 1",
    "include required(\"missing.conf\")",
    "given: yes\ninclude \"uses.conf\"",
    "one: 0\ninclude \"one.conf\"",
    "include \"one.conf\"\none: 2\nshared.from_one: no",
    // JSON.
    "{\"a\": {\"b\": [1, 2.5, null, true, \"x\"]}, \"c\": {}}",
    "{\n    \"servers\": {\n        \"credentials\": {\n            \"x\": \"y\"\n        }\n    }\n}",
    // What neither reads.
    "a: {",
    "a: [1, 2",
    "a: \"open",
    "a: p@ss",
    "a: x&y",
    "a: b*c",
    "key without a value\nb: 1",
    "a: }",
    // As people write them.
    "servers {\n  web_server: https://app.x\n  # comment\n  v { \"access_key\" = \"A\", \"secret_key\" = \"S\" }\n}\n",
    "sdk_like {\n  aws {\n    s3 {\n      # S3 credentials\n      key: \"\"\n      credentials: [\n        # {\n        #   bucket: \"x\"\n        # },\n        {\n          host: \"my-minio-host:9000\"\n          key: \"12345678\"\n          multipart: false\n        }\n      ]\n    }\n  }\n}",
    "w {\n  pip_version: [\"<20.2\", \"<22.3 ; x\"],\n  conda_channels: [\"pytorch\", \"conda-forge\", ]\n  extra_docker_arguments: [\"--ipc=host\", \"-v\", \"/mnt/host/data:/mnt/data\"]\n  timeout: 5\n},\n",
];

/// Files that we deliberately read in another way, with the reason.
const OTHERWISE: &[(&str, &str)] = &[
    (
        "b += [1]\nb += [2, 3]",
        "a list that did not exist may be appended to more than once",
    ),
    ("a: [\"\", x, \"\"]", "empty texts are elements of lists"),
    ("a: null\nb: ${a}", "a substitution by null is null"),
    ("a.\"b.c\": 1", "a dotted key may have quoted parts"),
    ("a: 5\na: {b: 1}", "an object may take the place of a scalar"),
    ("a: [1]\na += 2", "a scalar that is appended is an element"),
    ("a: \"\\u0041\\/\\b\"", "the escapes of JSON are escapes"),
    (
        "a:\nb: 1",
        "a key without value is empty and does not take the next assignment",
    ),
    (
        "a { b: 5m }\nc: 10 seconds",
        "a duration at the very end is a text like any other",
    ),
    ("\u{feff}a: 1", "a byte order mark is no part of the first key"),
];

/// The cases that were written by hand.
pub(crate) fn written() -> Vec<Case> {
    let same = SAME.iter().map(|text| Case {
        text: (*text).to_owned(),
        expect: Expect::Same,
    });
    let otherwise = OTHERWISE.iter().map(|(text, why)| Case {
        text: (*text).to_owned(),
        expect: Expect::Otherwise(why),
    });
    same.chain(otherwise).collect()
}

/// Random files, always the same ones.
pub(crate) fn generated(count: u64) -> Vec<Case> {
    let case = |seed| {
        let mut generator = Generator {
            state: 0x9e37_79b9_7f4a_7c15 ^ (seed + 1),
            defined: Vec::new(),
        };
        let mut text = String::new();
        let members = 3 + generator.below(8);
        for _ in 0..members {
            generator.member(&mut text, 0);
        }
        // The last text of a file could be taken for a duration.
        text.push_str("the_end: \"\"\n");
        Case {
            text,
            expect: Expect::Same,
        }
    };
    (0..count).map(case).collect()
}

const KEYS: &[&str] = &[
    "alpha",
    "beta.one",
    "beta.two",
    "gamma delta",
    "x_y-z",
    "deep.er.key",
    "\"quoted.key\"",
];
const SCALARS: &[&str] = &[
    "1",
    "-2.5",
    "1e3",
    "007",
    "true",
    "False",
    "null",
    "plain",
    "two words",
    "10GB",
    "1.2.3",
    "~/x/y",
    "http://h:1/p",
    "\"quoted\"",
    "\"with # and = in it\"",
    "\"esc\\\"aped\\n\"",
    "\"\"\"raw \\n\"\"\"",
    "\"\"",
    "a/b:c;d",
    "5m",
];

struct Generator {
    state: u64,
    /// Keys of scalars, which substitutions may refer to.
    defined: Vec<String>,
}

impl Generator {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift, good enough to choose among a few things.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    fn choose<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    fn member(&mut self, text: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        let key = format!("{}{}", self.choose(KEYS), self.below(3));
        let key = if key.starts_with('"') {
            format!("\"quoted.key{}\"", self.below(3))
        } else {
            key
        };
        let assign = self.choose(&[":", "=", " = ", ": "]);
        if self.below(5) == 0 {
            text.push_str(&format!("{indent}# a comment: {key}\n"));
        }
        match self.below(8) {
            0 | 1 if depth < 3 => {
                // Containers have keys of their own, so that no scalar is in their way.
                text.push_str(&format!(
                    "{indent}object{}{}\n",
                    self.below(3),
                    self.choose(&[" {", ": {"])
                ));
                let members = self.below(4);
                for _ in 0..members {
                    self.member(text, depth + 1);
                }
                text.push_str(&format!("{indent}}}\n"));
            }
            2 => {
                // The official parser drops empty texts from lists.
                let mut items: Vec<&str> = (0..self.below(4)).map(|_| self.choose(SCALARS)).collect();
                items.retain(|item| *item != "\"\"");
                let separator = self.choose(&[", ", "\n", ",\n"]);
                text.push_str(&format!(
                    "{indent}list{}{assign}[{}]\n",
                    self.below(3),
                    items.join(separator)
                ));
            }
            3 if depth == 0 && !self.defined.is_empty() => {
                let number = self.below(self.defined.len() as u64) as usize;
                let target = self.defined[number].clone();
                text.push_str(&format!("copy{}{assign}${{{target}}}\n", self.below(100)));
            }
            _ => {
                let value = self.choose(SCALARS);
                // The official parser leaves out what is substituted by null.
                if depth == 0 && value != "null" && !key.contains(['"', ' ']) {
                    self.defined.push(key.clone());
                }
                text.push_str(&format!("{indent}{key}{assign}{value}\n"));
            }
        }
    }
}
