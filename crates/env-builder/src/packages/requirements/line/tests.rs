use proptest::prelude::*;

use super::*;

/// What one line becomes, in short: kind of target, then the plain form.
fn read(line: &str) -> String {
    let one = |line: &Line| match line {
        Line::Include(file) => format!("include {file}"),
        Line::ExtraIndex(url) => format!("extra {url}"),
        Line::Option(option) => format!("option {option}"),
        Line::Obsolete(name) => format!("obsolete {name}"),
        Line::Requirement(requirement) => {
            let kind = match requirement.target {
                Target::Index(_) => "index",
                Target::Url(_) => "url",
                Target::File(_) => "file",
                Target::Path(_) => "path",
                Target::Vcs(_) => "vcs",
                Target::Unknown(_) => "unknown",
            };
            format!("{kind} {requirement}")
        }
    };
    match parse(line) {
        Ok(lines) => lines.iter().map(one).collect::<Vec<_>>().join(" | "),
        Err(problem) => format!("problem {problem}"),
    }
}

#[test]
fn requirements_by_name() {
    for (line, expected) in [
        ("six", "index six"),
        ("Jinja2", "index Jinja2"),
        ("six == 1.16.0", "index six==1.16.0"),
        ("six (>=1, <2)", "index six>=1,<2"),
        ("a.b_c[x, y] ~= 1.0 , != 1.5", "index a.b_c[x,y]~=1.0,!=1.5"),
        ("six[]", "index six"),
        (
            "torch == 2.1.0 ; python_version >= '3.8'",
            "index torch==2.1.0; python_version >= '3.8'",
        ),
        ("six;", "index six"),
        ("six==1.*", "index six==1.*"),
        ("six===1.0-odd", "problem"),
        (
            "a==1 --hash=sha256:aa --hash sha256:bb",
            "index a==1 --hash=sha256:aa --hash=sha256:bb",
        ),
        (
            "a==1; os_name == 'posix' --hash=sha256:aa",
            "index a==1; os_name == 'posix' --hash=sha256:aa",
        ),
        ("a --global-option=\"x y\"", "index a --global-option='x y'"),
        ("a --nothing", "problem there is no option --nothing"),
        ("a --hash", "problem the option --hash lacks its value"),
        ("two words", "problem \"two words\" is no name of a package"),
        ("six>=", "problem"),
        ("six==2004d!", "problem"),
        ("six[a b]", "problem \"[a b]\" is no list of extras"),
        ("six[a", "problem"),
        ("a; nonsense", "problem"),
        ("_x", "problem"),
        ("${VAR}", "problem"),
        ("; os_name == 'posix'", "problem it names no package"),
    ] {
        let found = read(line);
        if expected == "problem" {
            assert!(found.starts_with("problem "), "{line}: {found}");
        } else {
            assert_eq!(found, expected, "{line}");
        }
    }
}

#[test]
fn requirements_by_place() {
    for (line, expected) in [
        (
            "https://h/p-1.0-py3-none-any.whl#sha256=aa",
            "url https://h/p-1.0-py3-none-any.whl#sha256=aa",
        ),
        (
            "p[x]@https://h/p.zip ; os_name=='posix'",
            "url p[x] @ https://h/p.zip ; os_name=='posix'",
        ),
        ("file:///a/b.whl", "file file:///a/b.whl"),
        ("baz @ file:///a/c.whl", "file baz @ file:///a/c.whl"),
        (
            "p @ git+https://h/r.git@abc#egg=p&subdirectory=s",
            "vcs p @ git+https://h/r.git@abc#egg=p&subdirectory=s",
        ),
        ("git+ssh://git@h/r.git@v1", "vcs git+ssh://git@h/r.git@v1"),
        ("git+git@h:o/r.git@v1", "vcs git+git@h:o/r.git@v1"),
        ("git+file:///srv/r", "vcs git+file:///srv/r"),
        ("hg+https://h/r@tip", "vcs hg+https://h/r@tip"),
        (
            "git+https://h/r.git;p=1 ; os_name=='nt'",
            "vcs git+https://h/r.git;p=1 ; os_name=='nt'",
        ),
        ("./pkg", "path ./pkg"),
        (".", "path ."),
        ("/abs", "path /abs"),
        (
            "sub/pkg[x] ; python_version>'3'",
            "path sub/pkg[x] ; python_version>'3'",
        ),
        ("./pkg#egg=q", "path ./pkg"),
        ("x-1.0-py3-none-any.whl", "path x-1.0-py3-none-any.whl"),
        ("x.tar.gz", "path x.tar.gz"),
        ("q @ ./pkg", "path q @ ./pkg"),
        ("-e .", "path -e ."),
        ("-e pkg", "path -e pkg"),
        ("-e ./dir#egg=q", "path -e ./dir"),
        ("--editable=./dir[x]", "path -e ./dir[x]"),
        ("--editable ./dir", "path -e ./dir"),
        ("-e \"./a dir\"", "path -e ./a dir"),
        ("-e git+https://h/r@v#egg=q", "vcs -e git+https://h/r@v#egg=q"),
        ("-e", "problem it names no package"),
    ] {
        assert_eq!(read(line), expected, "{line}");
    }
}

#[test]
fn options() {
    for (line, expected) in [
        ("-r a.txt", "include a.txt"),
        ("-ra.txt", "include a.txt"),
        ("--requirement=my list.txt", "include my list.txt"),
        ("-r my list.txt", "include my list.txt"),
        ("-r a.txt -c b.txt", "include a.txt | option --constraint b.txt"),
        ("-c b.txt", "option --constraint b.txt"),
        (
            "--extra-index-url https://u:p@x/simple",
            "extra https://u:p@x/simple",
        ),
        ("-i https://y", "option --index-url https://y"),
        ("--index-url=https://y", "option --index-url https://y"),
        ("--pypi-url https://y", "option --index-url https://y"),
        (
            "-i https://y --extra-index-url https://x",
            "option --index-url https://y | extra https://x",
        ),
        ("--pre", "option --pre"),
        ("-f ./wheels", "option --find-links ./wheels"),
        ("-f './my wheels'", "option --find-links './my wheels'"),
        ("--no-index", "option --no-index"),
        ("--no-binary :all:", "option --no-binary :all:"),
        ("--only-binary=a,b", "option --only-binary a,b"),
        ("--trusted-host h", "option --trusted-host h"),
        ("--require-hashes", "option --require-hashes"),
        ("-Z", "obsolete --always-unzip"),
        ("--bogus x", "problem there is no option --bogus"),
        (
            "--trusted-host",
            "problem the option --trusted-host lacks its value",
        ),
        ("-i 'https", "problem a quote is not closed"),
    ] {
        assert_eq!(read(line), expected, "{line}");
    }
}

#[test]
fn names_that_are_known() {
    for (line, name) in [
        ("Six==1", Some("Six")),
        ("git+https://h/r@v#egg=q[x]&subdirectory=y", Some("q")),
        ("https://h/my_p-1.0-py3-none-any.whl", Some("my_p")),
        ("https://h/p.zip", None),
        ("./dir", None),
    ] {
        let Line::Requirement(found) = &parse(line).unwrap()[0] else {
            panic!("{line}");
        };
        assert_eq!(found.known_name(), name, "{line}");
    }
}

#[test]
fn installers_get_addresses_for_odd_paths() {
    for (line, expected) in [
        ("/a/b[x]", "/a/b[x]"),
        ("-e \"/a/b c[x]\"", "-e file:///a/b%20c[x]"),
        ("/a/é.whl", "file:///a/%C3%A9.whl"),
        ("./b c", "./b c"),
    ] {
        let Line::Requirement(found) = &parse(line).unwrap()[0] else {
            panic!("{line}");
        };
        assert_eq!(found.for_installer().to_string(), expected, "{line}");
    }
}

#[test]
fn names_at_the_beginning() {
    for (line, name) in [
        ("six", Some("six")),
        ("six[a]>=1", Some("six")),
        ("six @ https://h", Some("six")),
        ("six; x", Some("six")),
        ("https://h/x", None),
        ("./six", None),
        ("git+https://h/x", None),
        ("two words", None),
        ("--pre", None),
        ("_x", None),
        ("x.whl", None),
    ] {
        assert_eq!(name_of(line), name, "{line:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_and_the_plain_form_means_the_same(line in prop_oneof![
        "\\PC{1,60}",
        "(-e |-r |-c |--hash=|git\\+|https://|file://|\\./|[a-z]{1,3}|[0-9.]{1,3}|\\[|\\]|@|==|>=|;|,| |#|'|\"|\\(|\\)|os_name=='x'|python_version<'3'){1,10}",
        "[a-z]{1,4}(\\[[a-z]\\])? ?(==|>=|~=)? ?[0-9]\\.[0-9]( ?; ?os_name ?== ?'posix')?( --hash=sha256:[0-9a-f]{4})?",
    ]) {
        let line = line.trim();
        if let Ok(lines) = parse(line) {
            for requirement in lines.iter().filter_map(|line| match line {
                Line::Requirement(requirement) => Some(requirement),
                _ => None,
            }) {
                let plain = requirement.to_string();
                prop_assert!(!plain.contains('\n'));
                // An editable path may contain what would be a marker or an option elsewhere.
                if !requirement.editable {
                    let again = parse(&plain);
                    prop_assert_eq!(again, Ok(vec![Line::Requirement(requirement.clone())]), "{}", plain);
                }
            }
        }
    }
}
