//! Two at once: the same tool twice, a tool and its `--delete`, two `make all`, a `make destroy` during a `make all`. Nothing
//! is corrupted: both end well, or one says what stood in its way, and the next run ends as if it had been alone.

use serde_json::{Value, json};
use std::io::{Error, Result};
use std::process::Output;
use std::{slice, thread};
use tests::cloud::Cloud;
use tests::report::Row;
use tests::steps::{self, Case, Clean, Family, Step};

#[test]
#[ignore = "minutes: make test-faults"]
fn two_runs_of_one_tool() {
    let cloud = Cloud::up("test-faults-two").unwrap();
    let families = steps::aws(&cloud).unwrap();
    let (cloud, families) = (&cloud, &families);
    let rows = move |family: &Family| {
        let told = |how| Row::new(format!("{} {how} before any of its writes", family.tool));
        let mut rows = vec![
            told("twice at once, one overtaken"),
            told("undone by another run"),
            told("at once with another wish"),
        ];
        let is_change = |case: &&Case| case.name != family.tool && case.name != "--delete";
        let another = family.cases.iter().find(is_change).map(|case| &case.step);
        for case in &family.cases {
            let clean = family.clean(cloud, case, true).unwrap();
            // The same step; the way to its start, which undoes it, where that is no wish of its own; another wish.
            let undoing = if is_change(&case) { &[][..] } else { &case.start[..] };
            let another = another.filter(|_| case.name == family.tool).map_or(&[][..], slice::from_ref);
            for write in 0..clean.calls.len() {
                let others = [slice::from_ref(&case.step), undoing, another];
                for (row, others) in rows.iter_mut().zip(others).filter(|(_, others)| !others.is_empty()) {
                    let what = format!("{} overtaken before {}", case.told(family), clean.calls[write]);
                    match overtaken(cloud, family, case, write, &clean, others) {
                        Ok(true) => row.converges(Ok(())),
                        Ok(false) => row.tells(Ok(())),
                        Err(error) => row.converges(Err(format!("{what}: {error}"))),
                    }
                }
            }
        }
        rows.truncate(if another.is_some() { 3 } else { 2 });
        rows
    };
    let rows: Vec<Row> = thread::scope(|scope| {
        let running: Vec<_> = families.iter().map(|family| scope.spawn(move || rows(family))).collect();
        running.into_iter().flat_map(|family| family.join().expect("no panic")).collect()
    });
    for row in rows {
        row.keep().unwrap();
    }
}

/// One run is held before a write until another has come to its end. `true` when both end well, `false` when one says what
/// stood in its way; in either case the next run ends like one that was alone.
fn overtaken(
    cloud: &Cloud,
    family: &Family,
    case: &Case,
    write: usize,
    clean: &Clean,
    others: &[Step],
) -> Result<bool> {
    case.prepare(cloud)?;
    let fault = cloud.fault(&family.rule(json!({"kind": "hold-before", "skip": write}), true))?;
    let step = Step::new(format!("{} --timeout 20s", case.step.command), &case.step.document);
    let mut running = cloud.start(step.words(), step.document.as_bytes())?;
    if !running.held_by(&fault)? {
        return Err(Error::other("it was not held"));
    }
    let others: Vec<Output> = others.iter().map(|step| step.run(cloud)).collect::<Result<_>>()?;
    fault.release()?;
    drop(fault);
    let ended = running.finish()?;
    let mut well = true;
    for output in others.iter().chain([&ended]) {
        well &= output.status.success() || told(output)?;
    }
    let both = ended.status.success() && others.iter().all(|output| output.status.success());
    family.same(cloud, &case.step.done(cloud)?, clean)?;
    Ok(well && both)
}

/// Whether a run that failed said why: a conflict, or that it may be tried again.
fn told(output: &Output) -> Result<bool> {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let last: Value = serde_json::from_str(stderr.lines().last().unwrap_or_default()).unwrap_or_default();
    match last["error"]["kind"].as_str() {
        Some("conflict" | "retry" | "failed") => Ok(true),
        _ => Err(Error::other(format!("{}: {stderr}", output.status))),
    }
}

#[test]
#[ignore = "minutes: make test-faults"]
fn two_runs_of_make() {
    let cloud = Cloud::up("test-faults-two-make").unwrap();
    let all = |folder: &str| steps::make(&cloud, "-j4 all").replace("/json", folder);
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let alone = cloud.sh(&all("/json")).unwrap();
    assert!(alone.status.success(), "{}", text(&alone));
    let clean = cloud.account().unwrap();
    let destroyed = |folder| {
        let output = cloud.sh(&steps::make(&cloud, "destroy").replace("/json", folder)).unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    destroyed("/json");
    let empty = cloud.account().unwrap();

    let mut row = Row::new("two make all with the same names at once");
    let both = ["/one", "/two"].map(|folder| cloud.start(["bash", "-c", &all(folder)], b"").unwrap());
    let both = both.map(|running| running.finish().unwrap());
    let well = both.iter().all(|output| output.status.success());
    let outcome = if well { Ok(()) } else { Err(both.iter().map(text).collect::<Vec<_>>().join("\n---\n")) };
    row.converges(outcome.and_then(|()| {
        let now = cloud.account().unwrap();
        (now == clean).then_some(()).ok_or_else(|| format!("{now} instead of {clean}"))
    }));
    row.keep().unwrap();

    let mut row = Row::new("make destroy during a make all");
    for line in [5, 15, 25, 35] {
        destroyed("/one");
        let mut running = cloud.start(["bash", "-c", &all("/one")], b"").unwrap();
        let _reached = running.reads(line);
        let destroy = cloud.sh(&steps::make(&cloud, "destroy").replace("/json", "/three")).unwrap();
        let ended = running.finish().unwrap();
        let outcomes = [&destroy, &ended].map(|output| output.status.success() || text(output).contains("{\"error\":"));
        destroyed("/one");
        let now = cloud.account().unwrap();
        let right = outcomes == [true, true] && now == empty;
        let wrong = || format!("line {line}: {now}\n{}\n---\n{}", text(&destroy), text(&ended));
        row.converges(right.then_some(()).ok_or_else(wrong));
    }
    row.keep().unwrap();
}
