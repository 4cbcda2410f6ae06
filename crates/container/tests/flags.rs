//! Options become what the docker program itself makes of them: containers are created both ways on a real
//! engine, and compared.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::process::{Command, Output};

use bollard::Docker;
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions, RemoveContainerOptions};
use clearml_container::flags::{self, Outcome};
use serde_json::{Value, json};

const IMAGE: &str = "clearml-test-empty:1";

/// Options, each with a value that the engine takes without starting anything.
const CASES: &[&[&str]] = &[
    &["--add-host", "db:10.0.0.1", "--add-host=six:::1"],
    &["-a", "stdout"],
    &["--blkio-weight", "300"],
    &["--blkio-weight-device", "/dev/null:200"],
    &["--cap-add", "SYS_PTRACE", "--cap-drop=MKNOD"],
    &["--cgroup-parent", "/some"],
    &["--cgroupns", "host"],
    &["--cpu-period", "50000", "--cpu-quota=25000"],
    &["-c", "512"],
    &["--cpu-shares=7"],
    &["--cpus", "1.25"],
    &["--cpus=.5"],
    &["--cpuset-cpus", "0", "--cpuset-mems=0"],
    &["--device", "/dev/null"],
    &["--device=/dev/null:/dev/other:rw", "--device", "/dev/zero:r"],
    &["--device-cgroup-rule", "c 1:3 rwm"],
    &[
        "--device-read-bps",
        "/dev/null:1mb",
        "--device-write-bps=/dev/null:2048",
    ],
    &[
        "--device-read-iops",
        "/dev/null:100",
        "--device-write-iops=/dev/null:7",
    ],
    &[
        "--dns",
        "1.2.3.4",
        "--dns-option",
        "ndots:2",
        "--dns-search=example.org",
    ],
    &["--domainname", "example.org", "-h", "box"],
    &["--entrypoint", "/bin/echo"],
    &[
        "-e",
        "A=1",
        "--env=B=x y",
        "-eC=3",
        "-e",
        "HOST_SET",
        "-e",
        "HOST_UNSET",
    ],
    &["--expose", "80", "--expose=90-92/udp"],
    &["--gpus", "all"],
    &["--gpus=2"],
    &["--gpus", "\"device=0,1\",capabilities=compute"],
    &["--gpus", "device=GPU-3a23c669"],
    &["--group-add", "video", "--group-add=44"],
    &[
        "--health-cmd",
        "true",
        "--health-interval=1m30s",
        "--health-retries",
        "3",
        "--health-timeout=500ms",
    ],
    &["--health-start-period", "1.5s"],
    &["--health-cmd", ""],
    &["--no-healthcheck"],
    &["--init"],
    &["--init=false"],
    &["-it"],
    &["-ti", "--interactive=false"],
    &["--ipc", "host", "--pid=host", "--uts", "host"],
    &["--ipc=shareable"],
    &["-l", "a=b", "--label=only", "--label", "empty="],
    &["--log-driver", "none"],
    &["--log-opt", "max-size=10m", "--log-opt", "max-file=2"],
    &["-m", "512m", "--memory-reservation=100M", "--memory-swap", "-1"],
    &["-m1g", "--memory-swap=2gb", "--memory-swappiness", "10"],
    &[
        "--mount",
        "type=bind,src=/tmp,dst=/t,readonly,bind-propagation=rslave",
    ],
    &[
        "--mount",
        "type=tmpfs,destination=/x,tmpfs-size=10m,tmpfs-mode=1770",
    ],
    &["--mount", "source=vol,target=/v,volume-nocopy,volume-label=a=b"],
    &["--network", "host"],
    &["--net=none"],
    &["--oom-kill-disable", "-m", "64m"],
    &["--oom-score-adj", "-5"],
    &["--pids-limit", "100"],
    &["--privileged"],
    &["--privileged=false"],
    &[
        "-p",
        "8080:80",
        "--publish=127.0.0.1:9000-9002:9000-9002/udp",
        "-p",
        "1234",
    ],
    &["-p", "7000-7010:70", "-p", "[::1]:71:71"],
    &["-P", "--expose", "81"],
    &["--read-only"],
    &["--restart", "on-failure:3"],
    &["--restart=unless-stopped"],
    &["--runtime", "runc"],
    &[
        "--security-opt",
        "no-new-privileges",
        "--security-opt=seccomp=unconfined",
    ],
    &["--security-opt", "systempaths=unconfined"],
    &["--shm-size", "8gb"],
    &["--shm-size=1.5m"],
    &["--stop-signal", "SIGINT", "--stop-timeout=7"],
    &["--sysctl", "net.ipv4.ip_forward=1"],
    &["--tmpfs", "/run:rw,size=64m", "--tmpfs=/plain"],
    &["--ulimit", "nofile=1024:2048", "--ulimit=nproc=64"],
    &["-u", "1000:44", "-w", "/work"],
    &["--userns", "host"],
    &["-v", "/tmp:/data:ro", "--volume=named:/n", "-v/anonymous"],
    &["--volume-driver", "local", "-v", "vol2:/v"],
];

/// Needs a running engine and the docker program; says so where one is missing.
fn engine(test: &str) -> Option<Docker> {
    let docker = |arguments: &[&str]| Command::new("docker").args(arguments).output();
    match docker(&["version", "--format", "{{.Server.Version}}"]) {
        Ok(output) if output.status.success() => {}
        _ => {
            eprintln!("SKIPPED {test}: no Docker Engine answers the docker program (see DOCKER_HOST)");
            return None;
        }
    }
    if !docker(&["image", "inspect", IMAGE]).is_ok_and(|output| output.status.success()) {
        let import = Command::new("sh")
            .args(["-c", &format!("tar c -T /dev/null | docker import - {IMAGE}")])
            .output();
        assert!(import.unwrap().status.success());
    }
    Some(Docker::connect_with_defaults().unwrap())
}

fn words(case: &[&str]) -> Vec<String> {
    case.iter().map(|word| (*word).to_owned()).collect()
}

fn environment(name: &str) -> Option<String> {
    (name == "HOST_SET").then(|| "from the host".to_owned())
}

fn by_program(case: &[&str]) -> Result<String, String> {
    let output: Output = Command::new("docker")
        .arg("create")
        .args(case)
        .args([IMAGE, "/command"])
        .env("HOST_SET", "from the host")
        .env_remove("HOST_UNSET")
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

async fn by_us(docker: &Docker, case: &[&str]) -> Result<String, String> {
    let mut spec = flags::parse(&words(case), &environment).map_err(|e| e.to_string())?;
    spec.body.image = Some(IMAGE.to_owned());
    spec.body.cmd = Some(vec!["/command".to_owned()]);
    let created = docker
        .create_container(None::<CreateContainerOptions>, spec.body)
        .await;
    Ok(created.map_err(|e| e.to_string())?.id)
}

/// What was asked for, without what every container has of its own.
async fn inspected(docker: &Docker, id: &str) -> Value {
    let container = docker
        .inspect_container(id, None::<InspectContainerOptions>)
        .await
        .unwrap();
    docker
        .remove_container(
            id,
            Some(RemoveContainerOptions {
                force: true,
                v: true,
                ..Default::default()
            }),
        )
        .await
        .unwrap();
    let mut config = serde_json::to_value(&container.config).unwrap();
    // The program attaches itself, an agent does not; a container's default name is its id.
    for own in ["AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"] {
        config.as_object_mut().unwrap().remove(own);
    }
    if let Some(variables) = config["Env"].as_array_mut() {
        variables.sort_by_key(ToString::to_string);
    }
    if config["Hostname"]
        .as_str()
        .is_some_and(|name| id.starts_with(name))
    {
        config["Hostname"] = json!("");
    }
    let mut host = serde_json::to_value(&container.host_config).unwrap();
    // Older versions of the program leave names of capabilities as they are written.
    for list in ["CapAdd", "CapDrop"] {
        for name in host[list].as_array_mut().into_iter().flatten() {
            let text = name.as_str().unwrap_or_default().to_owned();
            *name = json!(format!("CAP_{}", text.trim_start_matches("CAP_")));
        }
    }
    if let Some(binds) = host["Binds"].as_array_mut() {
        binds.sort_by_key(ToString::to_string);
    }
    // Sizes of a terminal, and absence said in two ways.
    for own in ["ConsoleSize", "ContainerIDFile"] {
        host.as_object_mut().unwrap().remove(own);
    }
    let mut all =
        json!({"config": config, "host": host, "networks": container.network_settings.unwrap().networks});
    tidy(&mut all);
    all
}

/// The same thing is said by leaving a field away, by null, by an empty list, and by its default.
fn tidy(value: &mut Value) {
    if let Value::Array(values) = value {
        values.iter_mut().for_each(tidy);
    }
    if let Value::Object(map) = value {
        map.values_mut().for_each(tidy);
        map.retain(|key, value| {
            !(value.is_null()
                || *value == json!("")
                || *value == json!([])
                || *value == json!({})
                || *value == json!(false)
                || *value == json!(0)
                || (key == "MemorySwappiness" && *value == json!(-1))
                || (key == "NetworkMode" && *value == json!("default"))
                || (key == "RestartPolicy" && *value == json!({"Name": "no"})))
        });
    }
}

#[tokio::test]
async fn a_container_is_the_same_as_the_one_docker_makes() {
    let Some(docker) = engine("a_container_is_the_same_as_the_one_docker_makes") else {
        return;
    };
    let mut different = Vec::new();
    for case in CASES {
        let (theirs, ours) = (by_program(case), by_us(&docker, case).await);
        let (Ok(theirs), Ok(ours)) = (&theirs, &ours) else {
            different.push(format!("{case:?}\n  ours   {ours:?}\n  docker {theirs:?}"));
            continue;
        };
        let theirs = inspected(&docker, theirs).await;
        let ours = inspected(&docker, ours).await;
        if ours != theirs {
            different.push(format!("{case:?}\n  ours   {ours}\n  docker {theirs}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// The table has every option of the program that is installed, and none that takes a value wrongly.
#[test]
fn every_option_of_the_program_is_known() {
    let test = "every_option_of_the_program_is_known";
    let Ok(output) = Command::new("docker").args(["run", "--help"]).output() else {
        eprintln!("SKIPPED {test}: no docker program");
        return;
    };
    let help = String::from_utf8(output.stdout).unwrap();
    let mut seen = 0;
    for line in help.lines() {
        let text = line.trim_start();
        let (letter, text) = match text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) {
            Some(rest) => (
                rest.chars().next(),
                rest.split_once(", ").map_or("", |(_, long)| long),
            ),
            None => (None, text),
        };
        let Some(long) = text.strip_prefix("--").filter(|_| line.starts_with("  ")) else {
            continue;
        };
        let (name, rest) = long.split_once(' ').unwrap_or((long, ""));
        let flag = flags::flags()
            .iter()
            .find(|flag| flag.long == name)
            .unwrap_or_else(|| panic!("--{name} is not in the table"));
        assert_eq!(flag.short, letter, "--{name}");
        // A switch is followed by its description, after more than one space.
        assert_eq!(flag.switch, rest.is_empty() || rest.starts_with(' '), "--{name}");
        seen += 1;
    }
    assert!(seen > 80, "{help}");
}

/// Each option of the table is refused with a reason, has none, or is tried above.
#[test]
fn every_option_is_tried() {
    let names: Vec<&str> = CASES.concat();
    // The engine of the tests has no such thing, or needs another container; their values are read all the same.
    let elsewhere = [
        "annotation",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "env-file",
        "health-start-interval",
        "ip",
        "ip6",
        "isolation",
        "label-file",
        "link",
        "link-local-ip",
        "mac-address",
        "name",
        "network-alias",
        "platform",
        "pull",
        "storage-opt",
        "volumes-from",
    ];
    for flag in flags::flags()
        .iter()
        .filter(|flag| flag.outcome() == Outcome::Supported)
    {
        let tried = names.iter().any(|word| {
            let word = word.split('=').next().unwrap_or_default();
            word == format!("--{}", flag.long)
                || flag.aliases.iter().any(|alias| word == format!("--{alias}"))
                || flag.short.is_some_and(|letter| {
                    word.starts_with('-') && !word.starts_with("--") && word.contains(letter)
                })
        });
        assert!(tried || elsewhere.contains(&flag.long), "--{}", flag.long);
    }
}

fn parsed(case: &[&str]) -> Value {
    let spec = flags::parse(&words(case), &environment).unwrap_or_else(|e| panic!("{case:?}: {e}"));
    json!({"body": serde_json::to_value(&spec.body).unwrap(), "name": spec.name, "platform": spec.platform,
        "pull": format!("{:?}", spec.pull)})
}

#[test]
fn options_that_the_engine_of_the_tests_lacks() {
    let files = tempfile::tempdir().unwrap();
    let variables = files.path().join("env");
    std::fs::write(
        &variables,
        "# a remark\nA=from file\n\nHOST_SET\nHOST_UNSET\nB=2\n",
    )
    .unwrap();
    let file = variables.to_str().unwrap();
    for (case, pointer, value) in [
        (
            &["--env-file", file, "-e", "A=x"][..],
            "/body/Env",
            json!(["A=from file", "HOST_SET=from the host", "B=2", "A=x"]),
        ),
        (&["--label-file", file], "/body/Labels/B", json!("2")),
        (
            &["--ip", "10.1.2.3", "--network", "n"],
            "/body/NetworkingConfig/EndpointsConfig/n/IPAMConfig/IPv4Address",
            json!("10.1.2.3"),
        ),
        (
            &["--network", "name=n,alias=a,ip6=::2"],
            "/body/NetworkingConfig/EndpointsConfig/n/IPAMConfig/IPv6Address",
            json!("::2"),
        ),
        (
            &["--network", "n", "--network-alias=a"],
            "/body/NetworkingConfig/EndpointsConfig/n/Aliases",
            json!(["a"]),
        ),
        (&["--network", "n"], "/body/HostConfig/NetworkMode", json!("n")),
        (&["--link", "db"], "/body/HostConfig/Links", json!(["db:db"])),
        (
            &["--volumes-from", "x"],
            "/body/HostConfig/VolumesFrom",
            json!(["x"]),
        ),
        (
            &["--storage-opt", "size=1G"],
            "/body/HostConfig/StorageOpt/size",
            json!("1G"),
        ),
        (
            &["--device", "nvidia.com/gpu=0", "--device=nvidia.com/gpu=1"],
            "/body/HostConfig/DeviceRequests",
            json!([{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]}]),
        ),
        (
            &["--annotation", "a=b"],
            "/body/HostConfig/Annotations/a",
            json!("b"),
        ),
        (
            &["--cpu-rt-runtime=5"],
            "/body/HostConfig/CpuRealtimeRuntime",
            json!(5),
        ),
        (
            &["--health-start-interval=2s"],
            "/body/Healthcheck/StartInterval",
            json!(2_000_000_000),
        ),
        (
            &["--mount", "type=bind,src=/a,dst=/b,bind-recursive=disabled"],
            "/body/HostConfig/Mounts/0/BindOptions/NonRecursive",
            json!(true),
        ),
        (&["--name", "mine"], "/name", json!("mine")),
        (&["--platform=linux/arm64"], "/platform", json!("linux/arm64")),
        (&["--pull", "always"], "/pull", json!("Always")),
        (
            &["--isolation=default"],
            "/body/HostConfig/Isolation",
            json!("default"),
        ),
    ] {
        assert_eq!(
            parsed(case).pointer(pointer),
            Some(&value),
            "{case:?}: {}",
            parsed(case)
        );
    }
}

#[test]
fn what_can_not_be_followed_is_named() {
    for (case, message) in [
        (&["--gpu", "all"][..], "\"--gpu\" is not an option of docker run"),
        (&["--memroy=1g"], "did you mean --memory?"),
        (&["-Z"], "\"-Z\" is not an option"),
        (&["ubuntu"], "belongs to no option"),
        (&["--"], "belongs to no option"),
        (&["--memory"], "--memory needs a value"),
        (
            &["-m", "lots"],
            "--memory has the value \"lots\": an amount of memory is expected",
        ),
        (&["-m", "99999999999g"], "that is too much"),
        (&["--cidfile=/etc/x"], "--cidfile can't be used"),
        (&["--privileged=maybe"], "true or false is expected"),
        (&["-p", "80:99999"], "is not a port"),
        (&["-p", "1-3:1-2"], "differ in size"),
        (&["-v", "../x:/y"], "not an absolute path"),
        (&["-v", "a:b"], "target is not an absolute path"),
        (&["--mount", "type=bind,src=/a"], "target=PATH is missing"),
        (&["--gpus", "count=1,device=0"], "exclude each other"),
        (&["--gpus", "device=0,1"], "stands in quotes"),
        (&["--pid", "container:"], "host or container:NAME"),
        (&["--uts=mine"], "host is expected"),
        (&["--mac-address", "zz"], "such as 02:42"),
        (&["--ulimit", "nofile=5:4"], "above its hard limit"),
        (&["--restart", "sometimes"], "on-failure[:COUNT]"),
        (&["--no-healthcheck", "--health-cmd=x"], "contradicts"),
        (&["--network=host", "--network=n"], "can't be combined"),
        (&["--env-file", "/dev/zero"], "not a file"),
        (&["--hostname", "a\0b"], "zero byte"),
    ] {
        let error = flags::parse(&words(case), &environment).unwrap_err().to_string();
        assert!(error.contains(message), "{case:?}: {error}");
    }
    // The value of a variable may be a secret.
    let error = flags::parse(&words(&["-e", "KEY=sec\0ret"]), &environment).unwrap_err();
    assert!(!error.to_string().contains("sec"), "{error}");
    let spec = flags::parse(&words(&["-d", "--rm"]), &environment).unwrap();
    assert_eq!(spec.notices.len(), 2, "{:?}", spec.notices);
}

proptest::proptest! {
    #[test]
    fn any_words_are_read_or_refused(words in proptest::collection::vec(
        proptest::prop_oneof![
            "[-]{0,3}[a-z-]{0,12}=?[ -~]{0,20}",
            "\\PC{0,30}",
            proptest::sample::select(flags::flags().iter().map(|flag| format!("--{}", flag.long)).collect::<Vec<_>>()),
        ], 0..12)) {
        let _read_or_refused = flags::parse(&words, &|_| None);
    }
}
