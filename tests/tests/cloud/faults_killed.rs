//! Killed anywhere: SIGKILL right before and right after every write, then the same command again. It ends in the document
//! and the world of a run that nobody disturbed, and nothing is made twice.
//!
//! The short test takes some points of the tools that write to AWS; the others, which take minutes, all of them.

use serde_json::json;
use std::io::Result;
use std::thread;
use tests::cloud::Cloud;
use tests::report::Row;
use tests::steps::{self, Case, Clean, EVER, Family};

/// A moment to kill at: before or after the write of that number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    write: usize,
    after: bool,
}

#[test]
fn some_writes() {
    let cloud = Cloud::up("test-faults-killed").unwrap();
    let rows = sweep(&cloud, &steps::aws(&cloud).unwrap(), |point| point.write % 3 == 0 && point.after);
    for row in rows {
        row.sound().unwrap();
    }
}

#[test]
#[ignore = "minutes: make test-faults"]
fn every_write_to_aws() {
    let cloud = Cloud::up("test-faults-killed").unwrap();
    for row in sweep(&cloud, &steps::aws(&cloud).unwrap(), |_| true) {
        row.keep().unwrap();
    }
}

#[test]
#[ignore = "minutes: make test-faults"]
fn every_write_to_kubernetes() {
    let cloud = Cloud::up("test-faults-killed-kubernetes").unwrap();
    let families = steps::kubernetes(&cloud).unwrap();
    // One after the other: they share the cluster. One write follows the other, so that right before one is where a kill
    // right after the one before it leads, too.
    for family in families.chunks(1) {
        for row in sweep(&cloud, family, |point| point.after || point.write == 0) {
            row.keep().unwrap();
        }
    }
}

/// Families side by side, the cases of each one after another; a row a case.
fn sweep(cloud: &Cloud, families: &[Family], chosen: fn(Point) -> bool) -> Vec<Row> {
    let rows =
        |family: &Family| -> Vec<Row> { family.cases.iter().map(|case| kill(cloud, family, case, chosen)).collect() };
    thread::scope(|scope| {
        let running: Vec<_> = families.iter().map(|family| scope.spawn(move || rows(family))).collect();
        running.into_iter().flat_map(|family| family.join().expect("no panic")).collect()
    })
}

fn kill(cloud: &Cloud, family: &Family, case: &Case, chosen: fn(Point) -> bool) -> Row {
    let mut row = Row::new(format!("{} killed before and after every write", case.told(family)));
    let clean = family.clean(cloud, case, true).unwrap();
    assert!(!clean.calls.is_empty(), "{} writes nothing", case.told(family));
    for write in 0..clean.calls.len() {
        for point in [false, true].map(|after| Point { write, after }).into_iter().filter(|point| chosen(*point)) {
            match disturbed(cloud, family, case, point, &clean) {
                // The registry's answers cannot be held; the next write is killed before, which is the same world.
                Ok(false) if point.after && clean.calls[write].starts_with("registry:") => {}
                Ok(held) => row.converges(held.then_some(()).ok_or_else(|| "it was not held".to_owned())),
                Err(error) => row.converges(Err(format!("{point:?} {}: {error}", clean.calls[write]))),
            }
        }
    }
    row
}

/// Kills a run at the point, and runs it again to the same end; `false` when nothing held it.
fn disturbed(cloud: &Cloud, family: &Family, case: &Case, point: Point, clean: &Clean) -> Result<bool> {
    case.prepare(cloud)?;
    // Before a write everything that writes is held, after it only its own answer.
    let (kind, times) = if point.after { ("hold-after", 1) } else { ("hold-before", EVER) };
    let fault = cloud.fault(&family.rule(json!({"kind": kind, "skip": point.write, "times": times}), true))?;
    let mut running = cloud.start(case.step.words(), case.step.document.as_bytes())?;
    if !running.held_by(&fault)? {
        running.finish()?;
        return Ok(false);
    }
    running.kill()?;
    drop(fault);
    family.same(cloud, &case.step.done(cloud)?, clean).map(|()| true)
}

#[test]
#[ignore = "minutes: make test-faults"]
fn make_all_at_ten_points() {
    const POINTS: usize = 10;
    let cloud = Cloud::up("test-faults-make").unwrap();
    let make = |goals: &str| steps::make(&cloud, goals);
    let count = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    let clean = cloud.sh(&make("-j8 all")).unwrap();
    assert!(clean.status.success(), "{}", String::from_utf8_lossy(&clean.stdout));
    let (lines, world) = (count(&clean.stdout), cloud.account().unwrap());
    let mut row = Row::new("make -j8 all killed at ten points of its run");
    for point in 1..=POINTS {
        let output = cloud.sh(&make("destroy")).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let mut running = cloud.start(["bash", "-c", &make("-j8 all")], b"").unwrap();
        let reached = running.reads(lines * point / (POINTS + 1));
        running.kill().unwrap();
        let again = cloud.sh(&make("-j8 all")).unwrap();
        let now = cloud.account().unwrap();
        let converged = reached && again.status.success() && now == world;
        row.converges(converged.then_some(()).ok_or_else(|| {
            format!(
                "point {point}: reached {reached}, {}: {now}\n{}",
                again.status,
                String::from_utf8_lossy(&again.stdout)
            )
        }));
    }
    row.keep().unwrap();
}
