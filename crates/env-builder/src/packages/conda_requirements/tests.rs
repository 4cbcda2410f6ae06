use serde_json::json;

use super::*;
use crate::packages::requirements::pep::tests::interpreter;

const CHANNELS: [&str; 2] = ["pytorch", "nvidia"];

fn split(
    conda: Option<&str>,
    pip: Option<&str>,
    cuda: Option<u32>,
    channels: &[&str],
) -> (Vec<String>, Vec<String>) {
    let channels: Vec<String> = channels.iter().map(|channel| (*channel).to_owned()).collect();
    let here = Surroundings::new(&interpreter([3, 12, 1]));
    let split = Split::new(&Wish {
        conda,
        pip,
        channels: &channels,
        cuda,
        here: &here,
    });
    let names = split.conda.iter().map(|p| format!("{}{}", p.name, p.range));
    (names.collect(), split.pip)
}

fn all_conda(pip: &str, cuda: Option<u32>) -> Vec<String> {
    split(None, Some(pip), cuda, &CHANNELS).0
}

#[test]
fn lists_for_pip_are_said_to_conda() {
    assert_eq!(all_conda("torch==2.0", None), ["pytorch~=2.0", "cpuonly"]);
    assert_eq!(all_conda("torch==2", None), ["pytorch~=2.0", "cpuonly"]);
    assert_eq!(
        all_conda("torch==2.1.0.post1", Some(126)),
        ["pytorch~=2.1.0", "cuda-toolkit=12.6"]
    );
    assert_eq!(
        all_conda("huggingface_hub>=0.2,<1\nsix\n", None),
        ["huggingface-hub>=0.2,<1.0", "six"]
    );
    assert_eq!(
        all_conda("matplotlib\ncudnn==8\nsix==1.1\nsix==1.2", None),
        [
            "matplotlib",
            "six~=1.2",
            "graphviz",
            "python-graphviz",
            "kiwisolver"
        ]
    );
    assert_eq!(
        all_conda("python==3.10.4\npython==3\npip==21\nvirtualenv", None),
        ["python=3.10"]
    );
    assert_eq!(
        all_conda(
            "a==1.0 ; python_version < '3'\nb==1.0; python_version > '3'",
            None
        ),
        ["b~=1.0"]
    );
    assert_eq!(
        all_conda("tensorflow==2.9.1", Some(118)),
        ["tensorflow-gpu~=2.9.1", "cuda-toolkit=11.8"]
    );
    assert_eq!(
        all_conda("tensorflow_gpu==2.9.1", None),
        ["tensorflow~=2.9.1", "cpuonly"]
    );
}

#[test]
fn toolkits_fit_the_machine() {
    assert_eq!(
        split(None, Some("six"), Some(118), &["defaults"]).0,
        ["six", "cudatoolkit=11.8"]
    );
    assert_eq!(all_conda("cudatoolkit==11.3.1", Some(118)), ["cudatoolkit=11.3"]);
    // Too new for the driver, so the machine's own takes its place.
    assert_eq!(all_conda("cudatoolkit==12.1", Some(118)), ["cuda-toolkit=11.8"]);
    assert_eq!(all_conda("cudatoolkit==11.3", None), [""; 0]);
}

#[test]
fn what_conda_does_not_have_is_for_pip() {
    let (conda, pip) = split(
        None,
        Some("six\ngit+https://h/r.git@v1#egg=r\n./local\nclearml==1.14\n--extra-index-url https://x"),
        None,
        &CHANNELS,
    );
    assert_eq!(conda, ["six"]);
    assert_eq!(
        pip,
        [
            "git+https://h/r.git@v1#egg=r",
            "./local",
            "clearml==1.14",
            "--extra-index-url https://x"
        ]
    );
    assert_eq!(
        split(None, Some("clearml==1.14"), None, &["clearml"]).0,
        ["clearml~=1.14"]
    );
}

#[test]
fn a_list_for_conda_decides() {
    assert_eq!(
        split(Some(""), Some("numpy"), Some(118), &CHANNELS),
        (Vec::new(), vec!["numpy".to_owned()])
    );
    let (conda, pip) = split(
        Some("numpy=1.20=py38_0\nmy_pkg==1.0"),
        Some("numpy==1.21.1\nother==2"),
        None,
        &CHANNELS,
    );
    assert_eq!(conda, ["numpy~=1.21.1", "my_pkg~=1.0"]);
    assert_eq!(pip, ["other==2"]);
}

#[test]
fn what_conda_refuses_goes_to_pip() {
    let here = Surroundings::new(&interpreter([3, 12, 1]));
    let mut split = Split::new(&Wish {
        conda: None,
        pip: Some("six==1.16.0\nodd_name==2.0\nmatplotlib"),
        channels: &[],
        cuda: None,
        here: &here,
    });
    let answer = json!({"error": "ResolvePackageNotFound", "bad_deps": [["odd-name~=2.0"]]});
    assert_eq!(bad_packages(&answer), ["odd-name"]);
    assert!(split.hand_over(&bad_packages(&answer)));
    assert_eq!(split.pip, ["odd_name==2.0"]);
    assert!(!split.hand_over(&["unknown".to_owned()]));
    split.hand_over_all();
    assert_eq!(split.pip, ["odd_name==2.0", "six==1.16.0", "matplotlib"]);

    let message = "UnsatisfiableError: The following specifications were found to be incompatible:\n\n  - six~=1.16.0 -> python[version='2.7']\n  - defaults::numpy=1.20\n";
    assert_eq!(bad_packages(&json!({"message": message})), ["six", "numpy"]);
    assert!(bad_packages(&json!({"error": "disk full"})).is_empty());
}

#[test]
fn environment_files() {
    let packages = [Package {
        name: "pytorch".into(),
        range: "~=2.0".into(),
        line: None,
    }];
    assert_eq!(
        environment_file(&["nvidia".to_owned()], &packages),
        "channels:\n  - \"nvidia\"\ndependencies:\n  - \"pytorch~=2.0\"\n"
    );
    let text = json!({"name": "x", "dependencies": [
        "python=3.8.5=h1", "_libgcc=1", "pip=21", "cudnn=8", "tensorflow-gpu=2.1=g", "six=1.15", "six=1.16",
        {"pip": ["Clear-ML==1", "r==1.0"]}
    ]});
    let repositories = BTreeMap::from([("r".to_owned(), "git+https://h/r#egg=r".to_owned())]);
    let (file, pip) = recorded(&text.to_string(), &["c".to_owned()], false, &repositories).unwrap();
    assert_eq!(
        file,
        "channels:\n  - \"c\"\ndependencies:\n  - \"python=3.8\"\n  - \"tensorflow=2.1=g\"\n  - \"six=1.16\"\n"
    );
    assert_eq!(pip, ["Clear-ML==1", "git+https://h/r#egg=r"]);
    assert!(recorded("{}", &[], false, &repositories).is_none());
}

#[test]
fn what_conda_lists() {
    let answer = json!([
        {"name": "pytorch", "version": "2.0", "channel": "pytorch"},
        {"name": "_openmp", "version": "1", "channel": "conda-forge"},
        {"name": "six", "version": "1.16.0", "channel": "pypi"},
        {"name": "numpy", "version": "1.20", "channel": "defaults"}
    ]);
    assert_eq!(
        listed(&answer),
        [
            ("torch".to_owned(), "2.0".to_owned()),
            ("numpy".to_owned(), "1.20".to_owned())
        ]
    );
}
