//! Tables for the rules, properties for "nothing lost, doubled or reordered".

use proptest::prelude::*;

use super::*;

const SUPPRESS: RenderOptions = RenderOptions {
    suppress_carriage_return: true,
};
const KEEP: RenderOptions = RenderOptions {
    suppress_carriage_return: false,
};
const NO_LIMIT: usize = usize::MAX;

fn chunks(pieces: &[&[u8]]) -> VecDeque<Chunk> {
    let mut offset = 0;
    pieces
        .iter()
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let chunk = Chunk {
                offset,
                ms: 0,
                kind: Kind::Output,
                tag: 0,
                level: Level::Debug,
                payload: piece.to_vec(),
            };
            offset = chunk.end();
            chunk
        })
        .collect()
}

fn text(rendered: &Rendered) -> String {
    rendered.messages.iter().map(|m| m.text.as_str()).collect()
}

fn all(bytes: &[u8], options: RenderOptions) -> String {
    text(&render(&chunks(&[bytes]), options, Tail::End, NO_LIMIT, i64::MAX))
}

#[test]
fn lines_are_shown_as_a_terminal_would_leave_them() {
    for (bytes, expected) in [
        (&b"one\ntwo\n"[..], "one\ntwo\n"),
        (b"no end", "no end\n"),
        (b"\n\na\n", "\n\na\n"),
        (b"docker\r\n", "docker\n"),
        (b" 10%\r 20%\r100%\n", "100%\n"),
        (b" 10%\r 20%\r\n", " 20%\n"),
        (b"\r\r\n", "\n"),
        (b"ab\x08c\n", "abc\n"),
        (b"\x1b[0m\nx\n", "x\n"),
        (b"\x1b[31mred\x1b[0m\n", "\x1b[31mred\x1b[0m\n"),
        (
            b"bad \xff\xfe bytes \xe2\x82\n",
            "bad \u{fffd}\u{fffd} bytes \u{fffd}\n",
        ),
        ("grün €\n".as_bytes(), "grün €\n"),
    ] {
        assert_eq!(all(bytes, SUPPRESS), expected, "{bytes:?}");
    }
    assert_eq!(all(b" 10%\r 20%\r\ndone\r\n", KEEP), " 10%\n 20%\ndone\n");
}

#[test]
fn an_unterminated_line_waits_until_it_is_old() {
    let input = chunks(&[b"done\nhalf"]);
    let held = render(&input, SUPPRESS, Tail::Hold, NO_LIMIT, i64::MAX);
    assert_eq!((text(&held).as_str(), held.end), ("done\n", 5));
    let young = render(
        &input,
        SUPPRESS,
        Tail::Flush { older_than_ms: -1 },
        NO_LIMIT,
        i64::MAX,
    );
    assert_eq!(young.end, 5);
    let old = render(
        &input,
        SUPPRESS,
        Tail::Flush { older_than_ms: 0 },
        NO_LIMIT,
        i64::MAX,
    );
    assert_eq!((text(&old).as_str(), old.end), ("done\nhalf", 9));
}

#[test]
fn a_progress_display_gives_its_last_complete_state() {
    let input = chunks(&[b"10%\r20%\r3"]);
    let shown = render(
        &input,
        SUPPRESS,
        Tail::Flush { older_than_ms: 0 },
        NO_LIMIT,
        i64::MAX,
    );
    assert_eq!((text(&shown).as_str(), shown.end), ("20%\n", 8));
}

#[test]
fn a_character_cut_in_two_waits_for_its_rest() {
    let input = chunks(&["x€".as_bytes().split_last().unwrap().1]);
    let shown = render(
        &input,
        SUPPRESS,
        Tail::Flush { older_than_ms: 0 },
        NO_LIMIT,
        i64::MAX,
    );
    assert_eq!((text(&shown).as_str(), shown.end), ("x", 1));
}

#[test]
fn a_line_without_end_is_split_at_characters_in_bounded_pieces() {
    let line = "€".repeat(10 << 20 >> 1) + "\n";
    let input: Vec<&[u8]> = line.as_bytes().chunks(8191).collect();
    let rendered = render(&chunks(&input), SUPPRESS, Tail::Hold, NO_LIMIT, i64::MAX);
    assert!(rendered.messages.iter().all(|m| m.text.len() <= MAX_MESSAGE));
    assert_eq!(text(&rendered), line);
}

#[test]
fn a_batch_ends_at_its_limit_between_units() {
    let bytes = "line\n".repeat(1000);
    let rendered = render(&chunks(&[bytes.as_bytes()]), SUPPRESS, Tail::End, 1000, i64::MAX);
    assert!(rendered.end < bytes.len() as u64 && rendered.end.is_multiple_of(5));
}

#[test]
fn missing_output_and_agent_lines_end_the_line_before_them() {
    let mut input = chunks(&[b"par", b"x", b"tial\n"]);
    input[1].kind = Kind::Dropped;
    input[1].payload = [7u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
    input[1].level = Level::Warning;
    input[2].offset = input[1].end();
    let rendered = render(&input, SUPPRESS, Tail::Hold, NO_LIMIT, i64::MAX);
    let lines: Vec<&str> = rendered.messages.iter().map(|m| m.text.as_str()).collect();
    assert_eq!(lines[0], "par\n");
    assert!(lines[1].starts_with("### 2 lines (7 bytes)"), "{}", lines[1]);
    assert_eq!(lines[2], "tial\n");
}

/// Bytes as programs write them: text, progress bars, control characters, rubbish.
fn console_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => "[a-z€ü ]{0,12}".prop_map(String::into_bytes),
        4 => Just(b"\n".to_vec()),
        3 => Just(b"\r".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"\x1b[0m".to_vec()),
        1 => Just(b"\x08".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
        1 => (0usize..3, 1usize..3).prop_map(|(k, n)| b"x\ry".get(k..=k).unwrap().repeat(MAX_MESSAGE / 2 * n + k)),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// Feeds the bytes piece by piece and renders after each, as a shipper does.
fn piecewise(bytes: &[u8], cuts: &[usize], options: RenderOptions, max_bytes: usize) -> String {
    let mut positions: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    positions.extend([0, bytes.len()]);
    positions.sort_unstable();
    let pieces: Vec<&[u8]> = positions
        .windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect();
    let source = chunks(&pieces);
    let (mut window, mut out) = (VecDeque::new(), String::new());
    let mut next = 0;
    loop {
        let tail = if next < source.len() {
            window.push_back(source[next].clone());
            next += 1;
            Tail::Hold
        } else {
            Tail::End
        };
        loop {
            let rendered = render(&window, options, tail, max_bytes, i64::MAX);
            let before = window.front().map_or(0, |c: &Chunk| c.offset);
            if window.is_empty() || rendered.end == before {
                break;
            }
            out.push_str(&text(&rendered));
            consume(&mut window, rendered.end);
        }
        if tail == Tail::End {
            assert!(window.is_empty());
            return out;
        }
    }
}

fn consume(window: &mut VecDeque<Chunk>, end: u64) {
    while window.front().is_some_and(|c| c.end() <= end) {
        window.pop_front();
    }
    if let Some(first) = window.front_mut().filter(|c| c.offset < end) {
        first
            .payload
            .drain(..usize::try_from(end - first.offset).unwrap());
        first.offset = end;
    }
}

/// A few cases, unless the environment wants another number.
fn campaign() -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default()
    } else {
        ProptestConfig::with_cases(64)
    }
}

proptest! {
    #![proptest_config(campaign())]

    #[test]
    fn output_does_not_depend_on_how_the_bytes_were_cut(
        bytes in console_bytes(),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
        small_batches in any::<bool>(),
        suppress in any::<bool>(),
    ) {
        let options = RenderOptions { suppress_carriage_return: suppress };
        let max = if small_batches { 1 } else { NO_LIMIT };
        prop_assert_eq!(piecewise(&bytes, &cuts, options, max), all(&bytes, options));
    }

    #[test]
    fn without_control_characters_every_character_arrives_in_order(text in "[a-z€\n ]{0,400}") {
        let mut expected = text.clone();
        if !text.is_empty() && !text.ends_with('\n') {
            expected.push('\n');
        }
        prop_assert_eq!(all(text.as_bytes(), SUPPRESS), expected);
    }

    /// What the read-back does after a crash: the same start and end, but more bytes are there now.
    #[test]
    fn a_stretch_renders_the_same_again_when_more_has_been_written(
        bytes in console_bytes(),
        seen in any::<usize>(),
        more in console_bytes(),
        suppress in any::<bool>(),
        flush in any::<bool>(),
        marker in any::<bool>(),
    ) {
        let options = RenderOptions { suppress_carriage_return: suppress };
        let seen = seen % (bytes.len() + 1);
        let tail = if flush { Tail::Flush { older_than_ms: 0 } } else { Tail::Hold };
        let first = render(&chunks(&[&bytes[..seen]]), options, tail, NO_LIMIT, i64::MAX);
        let mut now = chunks(&[&bytes[..seen], &bytes[seen..], &more]);
        if let (true, Some(chunk)) = (marker, now.get_mut(1)) {
            chunk.kind = Kind::Dropped;
        }
        if first.end > 0 {
            let tail = Tail::Exact { end: first.end, ending: first.ending };
            let again = render(&now, options, tail, NO_LIMIT, i64::MAX);
            prop_assert_eq!(first, again);
        }
    }
}
