//! The cases of the specification for the pool and the amounts, as a table.

use clearml_gpu_alloc::{Request, Surroundings};

const CONTAINERS: Surroundings = Surroundings {
    containers: true,
    services_mode: false,
    cpu_only: false,
};

type Amounts = Vec<(u64, u64)>;
type Eighths = &'static [(u64, u64)];

/// Minimum and maximum in eighths of each queue, or the codes of the problems in their order.
fn outcome(gpus: &str, queues: &str, surroundings: Surroundings) -> Result<Amounts, Vec<String>> {
    let queues: Vec<&str> = queues.split_whitespace().collect();
    match Request::parse(Some(gpus), &queues, surroundings) {
        Ok(request) => {
            let amounts = request
                .queues
                .iter()
                .map(|queue| (queue.min.eighths(), queue.max.eighths()));
            Ok(amounts.collect())
        }
        Err(problems) => Err(problems
            .to_string()
            .lines()
            .map(|line| line[7..9].to_owned())
            .collect()),
    }
}

#[test]
fn amounts_mean_eighths() {
    let cases: &[(&str, &str, Eighths)] = &[
        ("0-7", "quad_gpu=4 dual_gpu=2", &[(32, 32), (16, 16)]),
        ("0-2", "a=0.125", &[(1, 1)]),
        ("0-2", "a=-1", &[(8, 8)]),
        ("0-1", "a=1-4", &[(8, 16)]),
        ("0-1", "a=b=2", &[(16, 16)]),
        ("0-1", "a=0.5-2", &[(4, 16)]),
        ("0-1", "a=0.25-0.5", &[(2, 4)]),
        ("0-1", "a=1.0", &[(8, 8)]),
        ("0-7", "a=-4", &[(8, 32)]),
        ("0-7", "a=.5 b=0.50 c=2.", &[(4, 4), (4, 4), (16, 16)]),
        ("0,1-", "a=1", &[]),
        (" 0, 1 ", "a=2", &[(16, 16)]),
        ("0:0,0:1,1:0", "a=3", &[(24, 24)]),
        ("0.0,1", "a=0.5", &[(4, 4)]),
        ("GPU-8f2e1a34,MIG-12345678-aaaa", "a=2", &[(16, 16)]),
    ];
    for (gpus, queues, expected) in cases {
        if expected.is_empty() {
            assert_eq!(
                outcome(gpus, queues, CONTAINERS),
                Err(vec!["02".to_owned()]),
                "{gpus}"
            );
        } else {
            assert_eq!(
                outcome(gpus, queues, CONTAINERS),
                Ok(expected.to_vec()),
                "{gpus} {queues}"
            );
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_code() {
    let cases = [
        ("0", "a=1.25", "08"),
        ("0", "a=0.3", "09"),
        ("0", "a=0", "07"),
        ("0", "a=0.0", "07"),
        ("0", "a=-0", "07"),
        ("0", "a=--1", "06"),
        ("0-2", "a=2-1", "11"),
        ("0", "a=-0.5", "11"),
        ("0,1", "a=3", "12"),
        ("0", "a=1 a=1", "13"),
        ("0", "a=1 b", "01"),
        ("0", "=1", "14"),
        ("0", "a=0.5-1.5", "08"),
        ("0", "a=two", "06"),
        ("0", "a=nan b=inf c=1e1", "06 06 06"),
        ("0", "a=1-2-3 b=1- c=- d=", "06 06 06 06"),
        ("0", "a=0.9375", "09"),
        ("0", "a=0.3 b=1.25 c=0", "09 08 07"),
        ("0,1-3", "a=1", "02"),
        ("0-1-2", "a=1", "02"),
        ("", "a=1", "02"),
        ("all", "a=1", "02"),
        ("3-1", "a=1", "03"),
        ("-1", "a=1", "03"),
        ("0,-1", "a=1", "03"),
        ("0,,1", "a=1", "03"),
        ("0,x", "a=1", "03"),
        ("GPU-12", "a=1", "03"),
        ("0-4294967295", "a=1", "03"),
        ("0,0", "a=1", "04"),
        ("0:1,0.1", "a=1", "04"),
        ("0,0:1", "a=1", "05"),
        ("0:0", "a=0.5", "19"),
        ("0", "", "22"),
        ("x", "a=0 b", "03 07 01"),
    ];
    for (gpus, queues, codes) in cases {
        let codes: Vec<String> = codes.split(' ').map(str::to_owned).collect();
        assert_eq!(
            outcome(gpus, queues, CONTAINERS),
            Err(codes),
            "--gpus {gpus} --queue {queues}"
        );
    }
}

#[test]
fn other_options_decide_too() {
    let with = |services_mode, cpu_only| Surroundings {
        containers: false,
        services_mode,
        cpu_only,
    };
    let codes = |codes: &[&str]| Err(codes.iter().map(|code| (*code).to_owned()).collect::<Vec<_>>());
    assert_eq!(outcome("0", "h=0.5 w=1", with(false, false)), codes(&["15"]));
    assert_eq!(outcome("0", "w=1", with(true, true)), codes(&["16", "17"]));
    assert_eq!(outcome("0", "w=1", with(false, false)), Ok(vec![(8, 8)]));
}

#[test]
fn messages_name_what_was_typed_and_what_would_do() {
    let queues = ["=7", "b", "c=0.3", "c=1", "d=9", "e=1.5"];
    let problems = Request::parse(Some("0-3"), &queues, CONTAINERS)
        .unwrap_err()
        .to_string();
    let expected = [
        r#"[E-GPU-14] queue "=7": empty queue name"#,
        r#"[E-GPU-01] queue "b": with --dynamic-gpus the queue must be in format <queue_name>=<num_gpus>"#,
        r#"[E-GPU-09] queue "c=0.3": fraction 0.3 is not a multiple of 0.125 (nearest: 0.25, 0.375)"#,
        r#"[E-GPU-12] queue "d=9": needs 9 GPUs but --gpus has 4"#,
        r#"[E-GPU-08] queue "e=1.5": fractional gpu cannot be > 1 (got 1.5; above one GPU only whole numbers)"#,
    ];
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected);
    let clamped = Request::parse(Some("0-1"), &["a=1-4"], CONTAINERS).unwrap();
    assert_eq!(
        clamped.warnings,
        [r#"[E-GPU-20] queue "a=1-4": maximum 4 is lowered to 2, the number of devices in --gpus"#]
    );
}
