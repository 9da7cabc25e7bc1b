//! `quorate votes` on this machine, which may have a device or not.
//!
//! Relies on the binary. Promises that figures are there for the processor in any case, and for a device only
//! where there is one. Knows no cluster.

use quorate_it::quorate;
use quorate_votes::gpu::Device;
use serde_json::json;

/// What could go wrong: figures of a device that is not there, or a machine that is not usable without one.
#[test]
fn a_machine_is_measured_with_what_it_has() {
    let has_device = Device::count() > 0;
    let status = quorate(&["votes", "status", "--threads", "2"]).good();
    assert_eq!(status["threads"], 2);
    assert!(status["processor"]["vote_us"].as_f64().is_some_and(|us| us > 0.0), "{status}");
    assert_eq!(status["device"].is_object(), has_device, "{status}");

    let ran = quorate(&["votes", "bench", "--votes", "8,64", "--threads", "1"]);
    assert_eq!(ran.stderr.contains("no device is present"), !has_device, "{ran:?}");
    let measured = ran.good();
    for (row, votes) in [(0, 8), (1, 64)] {
        let row = &measured["rows"][row];
        assert_eq!(row["votes"], votes);
        assert!(row["processor_us"].as_f64().is_some_and(|us| us > 0.0), "{row}");
        assert_eq!(row["tables_us"].is_number(), has_device, "{row}");
    }
    let without = quorate(&["votes", "bench", "--votes", "8", "--no-device"]);
    assert!(without.stderr.contains("as configured"), "{without:?}");
    assert_eq!(without.good()["device"], json!(null));
}

/// What could go wrong: a batch without votes, whose rate is none, or one that fits no device.
#[test]
fn batches_of_no_size_and_too_many_threads_are_wrong_usage() {
    for arguments in [["--votes", "0"], ["--votes", "131073"], ["--threads", "0"], ["--threads", "65"]] {
        let ran = quorate(&[&["votes", "bench"], &arguments[..]].concat());
        assert_eq!(ran.status, 2, "{arguments:?}: {ran:?}");
    }
}
