//! What the configuration does when a command starts: files, folders, variables, adjustments.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use clearml_agent_config::{NoticeLevel, Origin};
use serde_json::json;

use crate::home::Home;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_written_in_every_format() {
    let text = r#"files {
        text { path: "~/out/deep/text", contents: "line\nü" }
        var { path: "$OUT/var", contents: 5 }
        object { path: "~/out/object", contents: {a: [1, true]} }
        json { path: "~/out/json", contents: {a: 1}, target_format: JSON }
        yaml { path: "~/out/yaml", contents: {a: [x, 1]}, target_format: yml }
        base64 { path: "~/out/base64", contents: "aGVs\nbG8=", format: base64 }
        bytes { path: "~/out/bytes", contents: "/wD+", format: base64, target_format: bytes }
        empty { path: "~/out/empty" }
        executable { path: "~/out/executable", contents: x, mode: "0o755" }
        number { path: "~/out/number", contents: x, mode: 644 }
    }"#;
    let home = Home::new(&[("clearml.conf", text)]);
    let out = home.path("out");
    let home = home.env(&[("OUT", out.to_str().unwrap())]);
    let notices = home.load().write_files();
    assert_eq!(notices[0].text, "Creating files from configuration");
    assert!(
        notices.iter().all(|notice| notice.level == NoticeLevel::Info),
        "{notices:#?}"
    );
    assert!(
        notices
            .iter()
            .any(|notice| notice.text == format!("Saved [text]: {}", out.join("deep/text").display()))
    );
    let content = |name: &str| std::fs::read(out.join(name)).unwrap();
    assert_eq!(content("deep/text"), "line\nü".as_bytes());
    assert_eq!(content("var"), b"5");
    assert_eq!(content("object"), b"{\"a\":[1,true]}");
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&content("json")).unwrap(),
        json!({"a": 1})
    );
    assert_eq!(
        String::from_utf8(content("yaml")).unwrap().replace("  ", ""),
        "a:\n- x\n- 1\n"
    );
    assert_eq!(content("base64"), b"hello");
    assert_eq!(content("bytes"), [255, 0, 254]);
    assert_eq!(content("empty"), b"");
    assert_eq!(mode(&out.join("executable")), 0o755);
    assert_eq!(mode(&out.join("number")), 0o644);
    assert_eq!(mode(&out.join("empty")), 0o600, "it might be a secret");
}

#[test]
fn files_that_cannot_be_written_stop_nothing() {
    let text = r#"files {
        nopath { contents: x }
        folder { path: "~/folder", contents: x }
        slash { path: "~/new/", contents: x }
        kept { path: "~/kept", contents: new, overwrite: no }
        badmode { path: "~/badmode", contents: x, mode: "rw" }
        badbase { path: "~/badbase", contents: "???", format: base64 }
        notbytes { path: "~/notbytes", contents: x, target_format: bytes }
        below { path: "~/kept/below", contents: x }
        noobject: 5
        last { path: "~/last", contents: written }
        replaced { path: "~/present", contents: new }
        link { path: "~/link", contents: new }
    }"#;
    let home = Home::new(&[
        ("clearml.conf", text),
        ("kept", "old"),
        ("present", "old"),
        ("target", "old"),
        ("folder/x", ""),
    ]);
    symlink(home.path("target"), home.path("link")).unwrap();
    std::fs::set_permissions(home.path("present"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let notices = home.load().write_files();
    let skipped: Vec<&str> = notices
        .iter()
        .filter(|notice| notice.level == NoticeLevel::Warning)
        .map(|notice| notice.text.as_str())
        .collect();
    for (name, reason) in [
        ("nopath", "no path"),
        ("folder", "is a folder"),
        ("slash", "is a folder"),
        ("kept", "overwrite is off"),
        ("badmode", "octal"),
        ("badbase", "base64"),
        ("notbytes", "base64"),
        ("below", "Not a directory"),
        ("noobject", "no path"),
    ] {
        let found = skipped
            .iter()
            .find(|text| text.starts_with(&format!("Skipped [{name}]: ")));
        assert!(
            found.is_some_and(|text| text.contains(reason)),
            "{name}: {skipped:#?}"
        );
    }
    let content = |name: &str| std::fs::read_to_string(home.path(name)).unwrap();
    assert_eq!(
        (content("kept"), content("last"), content("present")),
        ("old".into(), "written".into(), "new".into())
    );
    assert_eq!(mode(&home.path("present")), 0o640, "a file keeps its mode");
    assert_eq!(
        (content("link"), content("target")),
        ("new".into(), "old".into()),
        "a link is replaced"
    );

    for off in ["agent.apply_files: false", ""] {
        let home = Home::new(&[("clearml.conf", &format!("{text}\n{off}"))]);
        let home = if off.is_empty() {
            home.env(&[("CLEARML_AGENT_ENABLE_FILES_CONFIG_SECTION", "no")])
        } else {
            home
        };
        assert_eq!(home.load().write_files(), []);
        assert!(!home.path("last").exists());
    }
}

#[test]
fn a_start_creates_folders_and_tells_what_it_did() {
    let text = "agent { venvs_dir: ~/v, vcs_cache.path: \"$BASE/vcs\", docker_apt_cache: /dev/null/x }\nenvironment: [[A, 1], [B, x]]";
    let home = Home::new(&[("clearml.conf", text)]);
    let base = home.path("base").display().to_string();
    let home = home.env(&[("BASE", &base)]);
    // Looking at the configuration changes nothing.
    let settings = home.load();
    assert_eq!(settings.get("agent.venvs_dir"), Some(&json!("~/v")));
    assert!(!home.path("v").exists());
    let prepared = settings.prepare();
    assert_eq!(
        prepared.settings.get("agent.venvs_dir"),
        Some(&json!(home.path("v")))
    );
    assert_eq!(
        prepared.settings.get("agent.vcs_cache.path"),
        Some(&json!(format!("{base}/vcs")))
    );
    assert!(matches!(
        prepared.settings.origin("agent.venvs_dir"),
        Some(Origin::File { .. })
    ));
    assert_eq!(
        prepared.settings.get("sdk.storage.cache.default_base_dir"),
        Some(&json!("~/.clearml/cache"))
    );
    assert!(
        home.path("v").is_dir() && home.path("base/vcs").is_dir() && home.path(".clearml/pip-cache").is_dir()
    );
    let texts: Vec<&str> = prepared
        .notices
        .iter()
        .map(|notice| notice.text.as_str())
        .collect();
    assert!(texts[0].contains("agent.docker_apt_cache"), "{texts:?}");
    assert_eq!(
        texts[1],
        "Environment variables set from configuration: ['A', 'B']"
    );
    let again = prepared.settings.reload().unwrap();
    assert_eq!(again.get("agent.venvs_dir"), Some(&json!(home.path("v"))));
    let user = Home::new(&[]).env(&[("CLEARML_AGENT_EXEC_USER", "me")]);
    let full = user.load().with_full_paths();
    assert_eq!(
        full.get("sdk.storage.cache.default_base_dir"),
        Some(&json!(user.path(".clearml/cache")))
    );
}

#[test]
fn versions_of_cuda_are_whole_numbers() {
    let version = |text: &str| {
        let settings = Home::new(&[]).env(&[("CUDA_VERSION", text)]).load();
        settings.agent.cuda_version.clone()
    };
    for (text, expected) in [
        ("11.8.0", Some("118")),
        ("10.0", Some("100")),
        ("100", Some("100")),
        ("10", Some("10")),
        ("12.4", Some("124")),
        ("none", None),
        ("", None),
    ] {
        assert_eq!(version(text).as_deref(), expected, "{text}");
    }
    let cpu = Home::new(&[])
        .env(&[("CLEARML_CUDA_VERSION", "11.8"), ("CPU_ONLY", "yes")])
        .load();
    assert_eq!(
        (
            cpu.agent.cuda_version.as_deref(),
            cpu.agent.cudnn_version.as_deref()
        ),
        (Some("0"), Some("0"))
    );
}

#[test]
fn azure_credentials_add_an_entry_once() {
    let text = "sdk.azure.storage.containers: [{account_name: other}]";
    let home = Home::new(&[("clearml.conf", text)]).env(&[
        ("AZURE_STORAGE_ACCOUNT", "acc"),
        ("AZURE_STORAGE_KEY", "hunter2-x"),
    ]);
    let settings = home.load();
    let expected = json!([{"account_name": "other"}, {"account_name": "acc", "account_key": "hunter2-x"}]);
    assert_eq!(settings.get("sdk.azure.storage.containers"), Some(&expected));
    assert!(!settings.masked_json().to_string().contains("hunter2"));
    // A child that reads the whole configuration has the variables as well.
    std::fs::write(home.path("clearml.conf"), settings.effective_json().to_string()).unwrap();
    assert_eq!(home.load().get("sdk.azure.storage.containers"), Some(&expected));
    let one = Home::new(&[]).env(&[("AZURE_STORAGE_ACCOUNT", "acc")]).load();
    assert_eq!(
        one.get("sdk.azure.storage.containers"),
        Some(&json!([{"account_name": "acc"}]))
    );
}

#[test]
fn what_this_agent_leaves_out_is_said_once() {
    let warnings = |text: &str| -> Vec<String> {
        let settings = Home::new(&[("clearml.conf", text)]).load();
        settings.warnings().iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        warnings("agent.snug { debug_log: true }\nagent.bootstrap.use_bootstrap: true"),
        [""; 0]
    );
    let metering = warnings("agent.snug { enabled: true, app_mode: x, report_usage_events: true }");
    assert!(
        metering.len() == 1 && metering[0].starts_with("agent.snug is ignored"),
        "{metering:?}"
    );
    let bootstrap =
        warnings("agent.bootstrap { always_update: true, uv_index_url: \"http://x\", use_bootstrap: true }");
    assert!(
        bootstrap.len() == 1 && bootstrap[0].contains("agent.bootstrap"),
        "{bootstrap:?}"
    );
    assert_eq!(
        warnings("agent.bootstrap { always_update: true, use_bootstrap: false }"),
        [""; 0]
    );
}

#[test]
fn the_environment_of_a_folder_is_chosen_by_a_variable() {
    let files = [
        ("conf/default/agent.conf", "worker_name: base\ngit_user: base"),
        ("conf/local/agent.conf", "worker_name: local"),
        ("conf/default/own/deep.conf", "x: 1"),
        ("conf/default/ignored.txt", "{"),
    ];
    let load = |environment: &str| {
        let home = Home::new(&files);
        let conf = home.path("conf").display().to_string();
        let home = home.env(&[("TRAINS_CONFIG_PATH", &conf), ("TRAINS_ENV", environment)]);
        clearml_agent_config::Settings::load(&home.sources).map_err(|error| error.to_string())
    };
    let base = load("").unwrap();
    assert_eq!(
        (base.agent.worker_name.as_str(), base.get("env")),
        ("base", Some(&json!("default")))
    );
    assert_eq!(base.get("own.deep.x"), Some(&json!(1)));
    let local = load("Local").unwrap();
    assert_eq!(
        (local.agent.worker_name.as_str(), local.get("env")),
        ("local", Some(&json!("local")))
    );
    assert!(load("moon").unwrap_err().contains("TRAINS_ENV"));
}
