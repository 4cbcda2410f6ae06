//! What is displayed reads back as the same value, and no text makes the reader panic or run away.

use clearml_gpu_alloc::{
    Amount, Device, Eighths, MAX_DEVICES, Pool, QueueSpec, Request, Surroundings, VisibleDevices,
};
use proptest::prelude::*;

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        (1u8..8).prop_map(|count| Amount::Fraction(Eighths::new(count).expect("one to seven"))),
        any::<std::num::NonZeroU32>().prop_map(Amount::Whole),
        (1u32..9).prop_map(|gpus| Amount::Whole(gpus.try_into().expect("not zero"))),
    ]
}

fn device() -> impl Strategy<Value = String> {
    prop_oneof![
        (0u32..40).prop_map(|index| index.to_string()),
        (40u32..80, 0u32..8, prop_oneof![Just(':'), Just('.')])
            .prop_map(|(index, slice, sign)| format!("{index}{sign}{slice}")),
        "(GPU|MIG)-[0-9a-fA-F]{8}(-[0-9a-f]{4}){0,3}",
        "MIG-GPU-[0-9a-f]{12}/[0-9]/[0-9]",
    ]
}

/// Bytes as they may stand in an argument, biased towards what the grammar knows.
fn argument() -> impl Strategy<Value = String> {
    let words = prop_oneof![
        6 => "[0-9=.,:-]{1,6}",
        2 => "(GPU-|MIG-|all|none|=|q=| |½|٣)",
        1 => any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ];
    proptest::collection::vec(words, 0..8).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn an_amount_reads_back(name in "[^=]{1,8}(=[^=]{1,3})?", first in amount(), second in amount()) {
        let spec = QueueSpec { queue: name, min: first.min(second), max: first.max(second) };
        prop_assert_eq!(spec.to_string().parse::<QueueSpec>(), Ok(spec));
    }

    #[test]
    fn a_pool_reads_back(items in proptest::collection::vec(device(), 1..30)) {
        if let Ok(pool) = items.join(" , ").parse::<Pool>() {
            prop_assert_eq!(pool.devices().len(), items.len());
            prop_assert_eq!(pool.to_string().parse::<Pool>(), Ok(pool));
        } else {
            let mut lower: Vec<String> = items.iter().map(|item| item.replace(':', ".").to_lowercase()).collect();
            lower.sort();
            lower.dedup();
            prop_assert!(lower.len() < items.len(), "refused, though none is listed twice");
        }
    }

    #[test]
    fn a_range_reads_back(first in any::<u32>(), length in 0u32..2000) {
        let text = format!("{first}-{}", first.saturating_add(length));
        match text.parse::<Pool>() {
            Ok(pool) => {
                prop_assert!(pool.devices().len() <= MAX_DEVICES);
                prop_assert_eq!(pool.devices().first(), Some(&Device::Index { index: first, slice: None }));
                prop_assert_eq!(pool.to_string(), text);
            }
            Err(_) => prop_assert!(length as usize >= MAX_DEVICES),
        }
    }

    #[test]
    fn no_argument_is_too_strange(gpus in argument(), queues in proptest::collection::vec(argument(), 0..5)) {
        let surroundings = Surroundings { containers: true, ..Surroundings::default() };
        match Request::parse(Some(&gpus), &queues, surroundings) {
            Ok(request) => {
                let devices = request.pool.devices().len();
                prop_assert!((1..=MAX_DEVICES).contains(&devices));
                for queue in &request.queues {
                    prop_assert!(queue.min <= queue.max && queue.max.eighths() <= 8 * devices as u64);
                }
            }
            Err(problems) => prop_assert!(!problems.0.is_empty()),
        }
        if let Ok(Some(visible)) = VisibleDevices::from_option(&gpus) {
            prop_assert_eq!(VisibleDevices::from_option(&visible.to_string()), Ok(Some(visible)));
        }
    }
}
