//! Cases of the specification, one after the other: what goes in, what comes out.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use clearml_sbatch_template::{Container, JobFile, Mode, Options, Separator, Setup, Template, Values};
use serde_json::{Value, json};

fn task() -> Value {
    let property = |value: &str| json!({"section": "properties", "name": "x", "value": value});
    json!({
        "id": "a1b2c3d4e5f60718293a4b5c6d7e8f90", "name": "exp one", "project": "p77", "tags": ["x", "y"],
        "container": {"image": "docker://ubuntu:22.04", "arguments": "-e A=1 -v /d:/d"},
        "runtime": {"flag": true, "whole": 3, "part": 2.50, "large": 1e3},
        "hyperparams": {
            "properties": {
                "num_nodes": property("2"), "part": property("gpu"), "evil": property("1 --uid=0"),
                "nl": property("a\nb"), "empty": property(""), "q": property("it's \"x\" $(id) `id`"),
                "opts": property("--qos=x --nice=3"), "u": property("0"),
                "odd": property("a\u{0}b\u{1b}c\u{2028}d"),
            },
            "Args": {"lr.decay": property("0.1")},
            "My Section": {"k v": property("z")},
            "slurm": {"memory": property("8G")},
        },
    })
}

fn values(task: Value) -> Values {
    Values {
        task,
        project_name: Some("Vision / Lab".to_owned()),
        queue_name: "gpu_q".to_owned(),
        queue_id: "q1".to_owned(),
        config: json!({"api": {"credentials": {"secret_key": "s3"}}, "agent": {"git_pass": "p", "x": "y"}}),
        ..Values::default()
    }
}

fn setup() -> Setup {
    Setup {
        task: "a1b2c3d4e5f60718293a4b5c6d7e8f90".to_owned(),
        queue: "gpu_q".to_owned(),
        worker: "h:slurm:a1b2".to_owned(),
        require_queue: true,
        ..Setup::default()
    }
}

/// A line in a template that is otherwise good.
fn around(line: &str) -> String {
    let (head, body) = if line.starts_with("#SBATCH") {
        (line, "")
    } else {
        ("", line)
    };
    format!("#!/bin/bash\n#SBATCH -J x%j\n{head}\n: start\n{body}\n: end\n${{CLEARML_AGENT_EXECUTE}}\n")
}

fn short(line: &str) -> String {
    line.replace("${…", "${CLEARML_TASK.hyperparams.properties.")
}

fn render_with(line: &str, values: &Values, options: Options) -> Result<String, String> {
    let template =
        Template::parse("t.sh", &around(&short(line)), options).map_err(|e| format!("refused: {e}"))?;
    let script = template
        .render(values, &setup())
        .map_err(|e| format!("failed: {e}"))?;
    let (head, body) = script.text.split_once(": start\n").unwrap();
    let body = body.split("\n: end\n").next().unwrap();
    let line = if line.starts_with("#SBATCH") {
        head.lines().nth(2).unwrap_or_default().to_owned()
    } else {
        body.to_owned()
    };
    Ok(line)
}

fn render(line: &str) -> Result<String, String> {
    render_with(line, &values(task()), Options::default())
}

#[test]
fn values_stand_where_placeholders_stood() {
    for (line, expected) in [
        (
            "#SBATCH --job-name=clearml_task_${CLEARML_TASK.id}   # keep",
            "#SBATCH --job-name=clearml_task_a1b2c3d4e5f60718293a4b5c6d7e8f90   # keep",
        ),
        ("#SBATCH --nodes=${…num_nodes.value:1}", "#SBATCH --nodes=2"),
        ("#SBATCH --nodes=${…absent.value:1}", "#SBATCH --nodes=1"),
        ("#SBATCH --nodes=${…empty.value:1}", "#SBATCH --nodes=1"),
        ("echo ${CLEARML_QUEUE_NAME}/${CLEARML_QUEUE_ID}", "echo gpu_q/q1"),
        ("echo ${CLEARML_TASK.project}", "echo p77"),
        (
            "echo ${CLEARML_TASK.project.id} ${CLEARML_TASK.project.name}",
            "echo p77 'Vision / Lab'",
        ),
        ("echo ${CLEARML_TASK.name}", "echo 'exp one'"),
        ("echo \"${CLEARML_TASK.name}\"", "echo \"exp one\""),
        ("echo ${CLEARML_TASK.tags}", "echo x,y"),
        ("echo ${CLEARML_TASK.hyperparams.Args.lr.decay.value}", "echo 0.1"),
        (
            "echo ${CLEARML_TASK.hyperparams.Args.\"lr.decay\".value}",
            "echo 0.1",
        ),
        ("echo ${CLEARML_TASK.hyperparams.My Section.k v.value}", "echo z"),
        (
            "echo ${CLEARML_TASK.hyperparams[\"My Section\"][\"k v\"].value}",
            "echo z",
        ),
        (
            "IMG=${CLEARML_TASK.nope.image:docker://ubuntu:22.04}",
            "IMG=docker://ubuntu:22.04",
        ),
        ("echo [${CLEARML_TASK.nope:}]", "echo []"),
        ("#SBATCH --constraint=${CLEARML_TASK.nope:}", ""),
        (
            "#SBATCH --qos=${CLEARML_TASK.nope:} --nodes=1",
            "#SBATCH --nodes=1",
        ),
        ("#SBATCH -q ${CLEARML_TASK.nope:} --nodes=1", "#SBATCH --nodes=1"),
        (
            "#SBATCH --ntasks=1 # ${CLEARML_TASK.nope}",
            "#SBATCH --ntasks=1 # ${CLEARML_TASK.nope}",
        ),
        ("echo 1 # ${CLEARML_TASK.nope}", "echo 1 # ${CLEARML_TASK.nope}"),
        (
            "echo $CLEARML_AGENT__AGENT__VENVS_DIR ${CLEARML_AGENT_GIT_USER:-x} $HOME ${HOME}",
            "echo $CLEARML_AGENT__AGENT__VENVS_DIR ${CLEARML_AGENT_GIT_USER:-x} $HOME ${HOME}",
        ),
        ("echo $CLEARML_TASK.id", "echo $CLEARML_TASK.id"),
        ("echo $${CLEARML_TASK.id}", "echo ${CLEARML_TASK.id}"),
        ("echo ${CLEARML_TASK.name|upper|lower}", "echo 'exp one'"),
        ("echo ${CLEARML_TASK.name|slug|trunc(5)}", "echo exp_o"),
        ("echo ${CLEARML_TASK.name|strip(eno)|capitalize}", "echo 'Xp '"),
        ("echo ${…nl.value}", "echo 'a b'"),
        ("#SBATCH --comment=${…nl.value}", "#SBATCH --comment=\"a b\""),
        ("echo ${CLEARML_TASK.id.x:7}", "echo 7"),
        (
            "echo ${CLEARML_TASK.runtime.flag} ${CLEARML_TASK.runtime.whole} ${CLEARML_TASK.runtime.part} ${CLEARML_TASK.runtime.large}",
            "echo true 3 2.5 1000.0",
        ),
        ("echo ${CLEARML_TASK.nope:a\\}b\\\\c}", "echo 'a}b\\c'"),
        (
            "echo ${CLEARML_CONFIG.api.credentials.secret_key:none}",
            "echo none",
        ),
        (
            "echo ${CLEARML_CONFIG.agent.git_pass:none} ${CLEARML_CONFIG.agent.x}",
            "echo none y",
        ),
        ("echo ${…odd.value}", "echo 'abc d'"),
        (
            "cat <<EOF\n# ${CLEARML_TASK.name}\nEOF",
            "cat <<EOF\n# exp one\nEOF",
        ),
    ] {
        assert_eq!(render(line).as_deref(), Ok(expected), "{line}");
    }
    let odd = around(&short("echo ${…odd.value}"));
    let template = Template::parse("t.sh", &odd, Options::default()).unwrap();
    let script = template.render(&values(task()), &setup()).unwrap();
    assert!(
        script.warnings.iter().any(|text| text.contains("properties.odd")),
        "{:?}",
        script.warnings
    );
}

#[test]
fn comments_are_left_as_they_are() {
    for line in [
        "# ${CLEARML_TASK.hyperparams.properties.user_key.value}",
        "# #SBATCH --mem=${CLEARML_TASK.nope}",
        " #SBATCH --mem=${CLEARML_TASK.nope}",
    ] {
        let text = format!("#!/bin/bash\n{line}\n#SBATCH -n 1\n${{CLEARML_AGENT_EXECUTE}}\n");
        let template = Template::parse("t.sh", &text, Options::default()).unwrap();
        let script = template.render(&values(task()), &setup()).unwrap();
        assert!(script.text.contains(&format!("\n{line}\n")), "{line}");
        assert_eq!(script.directives.len(), 1);
    }
}

#[test]
fn what_has_no_value_fails_the_task_with_the_place() {
    for (line, parts) in [
        (
            "echo ${CLEARML_TASK.nope}",
            vec!["t.sh:5:6", "CLEARML_TASK.nope", "default"],
        ),
        ("echo ${…num_nodes}", vec![".value"]),
        ("#SBATCH --nodes=${…empty.value}", vec!["empty"]),
        ("echo ${CLEARML_CONFIG.agent.git_pass}", vec!["secret"]),
        ("#SBATCH --output=out-${…absent.value}.log", vec!["t.sh:3:"]),
        ("echo $(( ${CLEARML_TASK.name|int} ))", vec!["whole number"]),
        ("echo ${CLEARML_TASK.container.x|words}", vec!["no such"]),
    ] {
        let error = render(line).unwrap_err();
        assert!(error.starts_with("failed:"), "{line}: {error}");
        for part in parts {
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}

#[test]
fn what_can_never_work_is_refused_when_the_template_is_read() {
    for line in [
        "echo ${CLEARML_TASK.id",
        "echo ${CLEARML_TASK.name:${CLEARML_TASK.id}}",
        "echo ${CLEARML_TASK.name|nosuch}",
        "echo ${CLEARML_TASK}",
        "echo ${CLEARML_QUEUE_NAME.x}",
        "#SBATCH --uid=${…u.value}",
        "#SBATCH --ui=${…u.value}",
        "#SBATCH --export=${…u.value}",
        "#SBATCH ${…opts.value}",
        "#SBATCH ${…opts.value|words}",
        "#SBATCH --${…opts.value}=1",
        "#SBATCH --exclusive ${…opts.value}",
        "#SBATCH --array=0-3",
        "#SBATCH hetjob",
        "#SBATCH --comment=\"x",
        "#SBATCH --comment=\"\\${CLEARML_TASK.name}\"",
        "X=`echo ${…q.value}`",
        "eval ${CLEARML_TASK.name}",
        "command eval \"x ${CLEARML_TASK.name}\"",
        "${CLEARML_TASK.name} --run",
        "\"${CLEARML_TASK.name}\" --run",
        "X=1 ${CLEARML_TASK.name}",
        "exec ${CLEARML_TASK.name}",
        "srun --mem=1G ${CLEARML_TASK.name}",
        "srun -p gpu \"${CLEARML_TASK.name}\"",
        "$(echo ${CLEARML_TASK.name})",
        "bash -c \"echo ${CLEARML_TASK.name}\"",
        "srun bash -lc 'echo ${CLEARML_TASK.name}'",
        "python3 -c \"print('${CLEARML_TASK.name}')\"",
        "ssh host echo ${CLEARML_TASK.name}",
        "echo ${CLEARML_TASK.name} | bash",
        "{ echo a; echo ${CLEARML_TASK.name}; } | bash",
        "bash <<< \"${CLEARML_TASK.name}\"",
        "bash <(echo ${CLEARML_TASK.name})",
        "bash <<EOF\necho ${CLEARML_TASK.name}\nEOF",
        "cat <<'EOF' | sh\n${CLEARML_TASK.name}\nEOF",
        "cat <<'EOF' |\n${CLEARML_TASK.name}\nEOF\nsh",
        "eval \"$(cat <<EOF\n${CLEARML_TASK.name}\nEOF\n)\"",
        "[[ ${CLEARML_TASK.name} -eq 1 ]]",
        "[[ -n x && y -eq ${CLEARML_TASK.name} ]]",
        "[[ x =~ ${CLEARML_TASK.name} ]]",
        "[ -v ${CLEARML_TASK.name} ]",
        "for ((i=0; i<${CLEARML_TASK.name}; i++)); do :; done",
        "for ${CLEARML_TASK.name} in a; do :; done",
        "function f { ${CLEARML_TASK.name}; }",
        "f () { ${CLEARML_TASK.name}; }",
        "echo $(( ${CLEARML_TASK.name} ))",
        "echo $[ ${CLEARML_TASK.name} ]",
        "echo ${x:-${CLEARML_TASK.name}}",
        "echo $'${CLEARML_TASK.name}'",
        "echo \\${CLEARML_TASK.name}",
        "echo \"\\${CLEARML_TASK.name}\"",
        "declare x=${CLEARML_TASK.name}",
        "read ${CLEARML_TASK.name}",
        "printf -v ${CLEARML_TASK.name} x",
        "a[${CLEARML_TASK.name}]=1",
        "PATH=${CLEARML_TASK.name}",
        "export PS4=${CLEARML_TASK.name}",
        "X=${CLEARML_TASK.name|words} id",
        "case x in ${CLEARML_TASK.name}) :;; esac",
        "trap \"${CLEARML_TASK.name}\" EXIT",
        "echo 'open",
        "echo $(open",
        "cat <<EOF\nopen",
        "echo \"${CLEARML_AGENT_EXECUTE}\"",
    ] {
        let error = render(line).expect_err(line);
        assert!(error.starts_with("refused:"), "{line}: {error}");
        assert!(error.contains("t.sh:"), "{line}: {error}");
    }
}

#[test]
fn hostile_values_stay_one_argument() {
    let with = |line: &str, name: &str| {
        let mut task = task();
        task["name"] = json!(name);
        render_with(line, &values(task), Options::default())
    };
    for (line, name, expected) in [
        (
            "#SBATCH --nodes=${CLEARML_TASK.name}",
            "1 --uid=0",
            "#SBATCH --nodes=\"1 --uid=0\"",
        ),
        (
            "#SBATCH --container-image=${CLEARML_TASK.name}",
            "docker://nvcr.io#nvidia/x:1",
            "#SBATCH --container-image=\"docker://nvcr.io#nvidia/x:1\"",
        ),
        (
            "#SBATCH --job-name=\"t-${CLEARML_TASK.name}\"",
            "a\" --qos=x",
            "#SBATCH --job-name=\"t-a\\\" --qos=x\"",
        ),
        (
            "#SBATCH --output=out-${CLEARML_TASK.name}.log",
            "50%",
            "#SBATCH --output=out-50%%.log",
        ),
        ("#SBATCH -J ${CLEARML_TASK.name}", ":", "#SBATCH -J \":\""),
        (
            "docker run ${CLEARML_TASK.container.arguments} img",
            "x",
            "docker run -e A=1 -v /d:/d img",
        ),
        (
            "docker run ${CLEARML_TASK.name|words} img",
            "-e 'A=x y' ; rm -rf /",
            "docker run -e 'A=x y' ';' rm -rf / img",
        ),
        ("cmd ${CLEARML_TASK.name}", "-rf", "cmd '-rf'"),
        ("echo {x,${CLEARML_TASK.name}}", "a,b", "echo {x,'a,b'}"),
        ("echo ${CLEARML_TASK.name}> /dev/null", "2", "echo '2'> /dev/null"),
        (
            "echo $(( ${CLEARML_TASK.name|int} * 2 ))",
            "2",
            "echo $(( 2 * 2 ))",
        ),
        ("echo ${x:-${CLEARML_TASK.name|raw}}", "safe", "echo ${x:-safe}"),
    ] {
        assert_eq!(with(line, name).as_deref(), Ok(expected), "{line}");
    }
    for (line, name) in [
        ("#SBATCH --output=out-${CLEARML_TASK.name}.log", "../../etc/x%u"),
        ("echo $(( ${CLEARML_TASK.name|int} ))", "2;id"),
        ("echo ${x:-${CLEARML_TASK.name|raw}}", "a}b"),
        ("cat <<'EOF'\n${CLEARML_TASK.name}\nEOF", "EOF"),
        ("cat <<-EOF\n\t${CLEARML_TASK.name}F\nEOF", "EO"),
        ("cat <<'EOF'\nx ${CLEARML_TASK.name|raw}\nEOF", "a\nEOF\nid"),
    ] {
        let error = with(line, name).expect_err(line);
        assert!(error.starts_with("failed:"), "{line}: {error}");
    }
}

#[test]
fn operators_of_the_cluster_may_open_options() {
    let options = Options {
        allowed_sbatch_options: vec!["qos".to_owned(), "nice".to_owned()],
        allow_user_options: vec!["export".to_owned()],
        ..Options::default()
    };
    let line = "#SBATCH ${…opts.value|words} --export=${…part.value}";
    let rendered = render_with(line, &values(task()), options.clone());
    assert_eq!(rendered.as_deref(), Ok("#SBATCH --qos=x --nice=3 --export=gpu"));
    let mut evil = task();
    for text in ["--uid=0", "x", "--ni=3", "--qos=x --wrap=id"] {
        evil["hyperparams"]["properties"]["opts"]["value"] = json!(text);
        let error = render_with(line, &values(evil.clone()), options.clone()).unwrap_err();
        assert!(error.contains("none of the options"), "{error}");
    }
}

#[test]
fn the_separator_can_be_another() {
    let options = Options {
        separator: Separator::new(":-").unwrap(),
        ..Options::default()
    };
    let values = values(task());
    let line = "echo ${CLEARML_TASK.nope:-d}";
    assert_eq!(
        render_with(line, &values, options.clone()).as_deref(),
        Ok("echo d")
    );
    let error = render_with("echo ${CLEARML_TASK.nope:d}", &values, options).unwrap_err();
    assert!(error.contains("CLEARML_TASK.nope:d"), "{error}");
    assert!(Separator::new("|").is_err() && Separator::new("").is_err() && Separator::new("::::").is_err());
}

#[test]
fn a_template_as_a_whole_has_to_be_sound() {
    let parse = |text: &str| Template::parse("t.sh", text, Options::default());
    let error = parse("echo\n${CLEARML_AGENT_EXECUTE}\n").unwrap_err().to_string();
    assert!(
        error.contains("t.sh:1:1") && error.contains("#!/bin/bash"),
        "{error}"
    );
    let error = parse("#!/bin/bash\n${CLEARML_PRE_SETUP}\n")
        .unwrap_err()
        .to_string();
    assert!(error.contains("CLEARML_AGENT_EXECUTE"), "{error}");
    let twice = "#!/bin/bash\n${CLEARML_AGENT_EXECUTE}\n${CLEARML_AGENT_EXECUTE}\n";
    assert!(parse(twice).unwrap_err().to_string().contains("t.sh:3:1"));
    let comment = "#!/bin/bash\n# ${CLEARML_PRE_SETUP}\n${CLEARML_AGENT_EXECUTE}\n";
    assert!(parse(comment).unwrap_err().to_string().contains("comment"));
    assert!(parse("").is_err() && parse("#!/bin/bash\n\0").is_err());

    let crlf = parse("#!/bin/bash\r\n#SBATCH -n 1\r\n${CLEARML_AGENT_EXECUTE}\r\n").unwrap();
    assert!(crlf.warnings().iter().any(|w| w.text.contains("CR LF")));
    assert!(
        !crlf
            .render(&values(task()), &setup())
            .unwrap()
            .text
            .contains('\r')
    );

    let warned = parse("#!/bin/bash\n#SBATCH --ntasks=1\n#SBATCH --nodes=${CLEARML_Task.id}${CLEARML_TASK.id}\n: ${CLEARML_TASKS.id}\n${CLEARML_AGENT_EXECUTE}\n#SBATCH -n 2\n").unwrap();
    let said: Vec<String> = warned.warnings().iter().map(ToString::to_string).collect();
    for part in [
        "--ntasks-per-node=1",
        "3:17: ${CLEARML_Task…} is text for sbatch; did you mean ${CLEARML_TASK…}?",
        "4:3: ${CLEARML_TASKS…} is left to the shell",
        "after the first command",
    ] {
        assert!(said.iter().any(|text| text.contains(part)), "{part}: {said:#?}");
    }
}

#[test]
fn scripts_and_names_have_limits() {
    let mut long = task();
    long["name"] = json!("x".repeat(5 << 20));
    let error = render_with(
        "echo ${CLEARML_TASK.name}",
        &values(long.clone()),
        Options::default(),
    )
    .unwrap_err();
    assert!(error.contains("sbatch takes"), "{error}");
    long["name"] = json!("x".repeat(1200));
    let error = render_with(
        "#SBATCH -J ${CLEARML_TASK.name}",
        &values(long),
        Options::default(),
    )
    .unwrap_err();
    assert!(error.contains("1000"), "{error}");
}

#[test]
fn other_interpreters_take_harmless_values_only() {
    let text = "#!/usr/bin/env python3\n#SBATCH -n 1\nx = '${CLEARML_TASK.name}'\n${CLEARML_AGENT_EXECUTE}\n";
    let template = Template::parse("t.py", text, Options::default()).unwrap();
    let error = template
        .render(&values(task()), &setup())
        .unwrap_err()
        .to_string();
    assert!(error.contains("t.py:3:6") && error.contains("slug"), "{error}");
    let mut good = task();
    good["name"] = json!("exp");
    let script = template.render(&values(good), &setup()).unwrap();
    assert!(script.text.contains("x = 'exp'"));
}

fn singularity(image: Option<&str>, default: Option<&str>, arguments: &str) -> Result<String, String> {
    let options = Options {
        mode: Mode::Singularity,
        ..Options::default()
    };
    let text = "#!/bin/bash\n${CLEARML_PRE_SETUP}\nsrun singularity exec --uts ${CLEARML_AGENT_EXECUTE}\n${CLEARML_POST_SETUP}\n";
    let template = Template::parse("t.sh", text, options).map_err(|e| e.to_string())?;
    let values = Values {
        default_image: default.map(str::to_owned),
        ..values(task())
    };
    let setup = Setup {
        agent: Some("/opt/agent".to_owned()),
        container: Container {
            image: image.map(str::to_owned),
            arguments: arguments.to_owned(),
            setup_script: None,
        },
        ..setup()
    };
    let script = template.render(&values, &setup).map_err(|e| e.to_string())?;
    let line = script
        .text
        .lines()
        .find(|line| line.starts_with("srun singularity"));
    Ok(line.unwrap().to_owned())
}

#[test]
fn singularity_gets_image_binds_and_command() {
    let line = singularity(None, Some("docker://ubuntu"), "").unwrap();
    assert!(line.contains(" docker://ubuntu /bin/sh "), "{line}");
    assert!(
        line.contains("--bind /opt/agent:/opt/clearml/clearml-agent:ro"),
        "{line}"
    );
    let line = singularity(Some("nvidia/cuda:12.4"), None, "-e A=1 -v /d:/e:ro").unwrap();
    assert!(
        line.contains("--env A=1 --bind /d:/e:ro docker://nvidia/cuda:12.4 /bin/sh"),
        "{line}"
    );
    let line = singularity(Some("/a b;id.sif"), None, "").unwrap();
    assert!(line.contains(" '/a b;id.sif' /bin/sh"), "{line}");
    assert!(
        singularity(None, None, "")
            .unwrap_err()
            .contains("agent.default_docker.image")
    );
}

#[test]
fn srun_delegation_starts_the_agent_once() {
    let options = || Options {
        mode: Mode::SrunDelegation,
        ..Options::default()
    };
    let base = "#!/bin/bash\nsrun() { command srun --container-image=${CLEARML_TASK.container.image} \"$@\"; }\n${CLEARML_PRE_SETUP}\n";
    for (text, count) in [
        (format!("{base}${{CLEARML_POST_SETUP}}\n"), 1),
        (
            format!("{base}${{CLEARML_AGENT_EXECUTE}}\n${{CLEARML_POST_SETUP}}\n"),
            1,
        ),
    ] {
        let template = Template::parse("t.sh", &text, options()).unwrap();
        let script = template.render(&values(task()), &setup()).unwrap().text;
        assert_eq!(script.matches("\nsrun --overlap").count(), count, "{script}");
        assert!(script.find("command srun").unwrap() < script.find("\nsrun --overlap").unwrap());
        assert!(script.contains("docker://ubuntu:22.04"));
    }
    assert!(Template::parse("t.sh", "#!/bin/bash\n${CLEARML_PRE_SETUP}\n", options()).is_err());
}

/// What users set in properties does not reach the generated parts, so those are looked at with the templates
/// that administrators begin with.
#[test]
fn the_templates_of_the_guide_render_without_a_warning_about_themselves() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/slurm/templates");
    for (file, mode) in [
        ("native.sh", Mode::Native),
        ("pyxis-directives.sh", Mode::Native),
        ("pyxis-srun.sh", Mode::SrunDelegation),
        ("singularity.sh", Mode::Singularity),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let options = Options {
            mode,
            ..Options::default()
        };
        let template = Template::parse(file, &text, options).unwrap();
        assert_eq!(template.warnings(), [], "{file}");
        let setup = Setup {
            configuration: Some(JobFile::Inline(
                "api { credentials { secret_key: \"s3cret\" } }".to_owned(),
            )),
            shared_dir: Some("/shared/it's".to_owned()),
            container: Container {
                image: Some("ubuntu:22.04".to_owned()),
                ..Container::default()
            },
            ..setup()
        };
        let script = template.render(&values(task()), &setup).unwrap();
        assert_eq!(
            script.option("job-name", 'J'),
            Some("clearml_task_a1b2c3d4e5f60718293a4b5c6d7e8f90")
        );
        assert!(script.option("mem", '-').is_none() && !script.text.contains("s3cret"));
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(file);
        std::fs::write(&path, &script.text).unwrap();
        for shell in ["bash", "dash"] {
            let Ok(parsed) = std::process::Command::new(shell).arg("-n").arg(&path).output() else {
                continue;
            };
            assert!(
                parsed.status.success(),
                "{file}: {}",
                String::from_utf8_lossy(&parsed.stderr)
            );
        }
    }
}
