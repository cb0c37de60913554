//! AWS misbehaves: every operation that the tools call is throttled, fails, stalls, answers half or not at all. What passes
//! is retried, within bounds, and ends as if nothing had been; what does not pass ends with exit code 5 and the operation.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::thread;
use tests::cloud::Cloud;
use tests::report::Row;
use tests::steps::{self, Case, Clean, EVER, Family, Step};

/// Attempts of one call. Source: `common::aws`.
const ATTEMPTS: usize = 6;

/// What calls itself so uses the SDK for Rust: the tools and the controller, not what stands for AWS itself.
const SDK: &str = "aws-sdk-rust";

/// How an operation misbehaves.
#[derive(Clone)]
struct Trouble {
    /// Told in the report.
    name: &'static str,
    /// All of them at once.
    rules: Vec<Value>,
    passes: bool,
}

/// An operation and what came of its trouble.
struct Outcome {
    trouble: usize,
    result: Result<(), String>,
}

fn troubles() -> Vec<Trouble> {
    let passing = |name, rule| Trouble { name, rules: vec![rule], passes: true };
    let lasting = |name, rule| Trouble { name, rules: vec![rule], passes: false };
    let repeated_late = vec![json!({"kind": "reset"}), json!({"kind": "stall", "skip": 1, "seconds": 3})];
    vec![
        passing("throttled twice", json!({"kind": "throttle", "times": 2})),
        passing("500 once", json!({"kind": "error", "status": 500, "code": "InternalFailure"})),
        passing("503 three times", json!({"kind": "error", "status": 503, "code": "ServiceUnavailable", "times": 3})),
        passing("no answer for 10 s", json!({"kind": "stall", "seconds": 10})),
        passing("carried out, no answer", json!({"kind": "reset"})),
        passing("carried out, half an answer", json!({"kind": "truncate"})),
        Trouble { name: "carried out, no answer, repeated 3 s later", rules: repeated_late, passes: true },
        lasting("throttled for ever", json!({"kind": "throttle", "times": EVER})),
        lasting("503 for ever", json!({"kind": "error", "status": 503, "code": "ServiceUnavailable", "times": EVER})),
        lasting("carried out, never an answer", json!({"kind": "reset", "times": EVER})),
    ]
}

#[test]
fn some_operations() {
    let cloud = Cloud::up("test-faults-aws").unwrap();
    let families = steps::aws(&cloud).unwrap();
    let quick = ["throttled twice", "carried out, half an answer", "carried out, no answer, repeated 3 s later"];
    let chosen: Vec<Trouble> = troubles().into_iter().filter(|trouble| quick.contains(&trouble.name)).collect();
    for row in tried(&cloud, &families, &chosen, |action| {
        ["Create", "Attach", "Authorize", "PutRolePolicy"].iter().any(|write| action.contains(write))
    }) {
        row.sound().unwrap();
    }
    eventually_consistent_iam(&cloud).sound().unwrap();
}

#[test]
#[ignore = "minutes: make test-faults"]
fn every_operation() {
    let cloud = Cloud::up("test-faults-aws").unwrap();
    let families = steps::aws(&cloud).unwrap();
    for row in tried(&cloud, &families, &troubles(), |_| true) {
        row.keep().unwrap();
    }
    eventually_consistent_iam(&cloud).keep().unwrap();
}

#[test]
#[ignore = "minutes: make test-faults"]
fn every_operation_of_the_flow() {
    let cloud = Cloud::up("test-faults-aws-flow").unwrap();
    let make = |goals| {
        let output = cloud.sh(&steps::make(&cloud, goals)).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(()) } else { Err(format!("make {goals}: {}: {said}", output.status)) }
    };
    make("-j8 all").unwrap();
    let clean = cloud.account().unwrap();
    let calls = cloud.calls().unwrap();
    let of_the_sdk = |call: &&Value| call["agent"].as_str().is_some_and(|agent| agent.contains(SDK));
    let actions: BTreeSet<&str> = calls.iter().filter(of_the_sdk).filter_map(|call| call["action"].as_str()).collect();
    assert!(actions.len() > 30, "{actions:?}");
    for Trouble { name, rules, .. } in troubles().iter().filter(|trouble| trouble.passes) {
        let mut row = Row::new(format!("make all while every AWS operation is {name}"));
        make("-j8 destroy").unwrap();
        let each = actions.iter().flat_map(|action| rules.iter().map(move |rule| on(rule, SDK, action)));
        let faults: Vec<_> = each.map(|rule| cloud.fault(&rule).unwrap()).collect();
        let outcome = make("-j8 all");
        let struck = faults.iter().filter(|fault| !fault.struck().is_empty()).count();
        drop(faults);
        let outcome = outcome.and_then(|()| {
            let now = cloud.account().unwrap();
            let right = now == clean && struck > 30;
            right.then_some(()).ok_or_else(|| format!("{struck} operations struck; {now} instead of {clean}"))
        });
        row.converges(outcome);
        row.keep().unwrap();
    }
    let mut row = Row::new("make all while a role's trust is not honoured yet");
    make("-j8 destroy").unwrap();
    let why = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
    let unheard = json!({"kind": "error", "status": 403, "code": "AccessDenied", "message": why, "times": 6});
    let fault = cloud.fault(&on(&unheard, SDK, "sts:AssumeRoleWithWebIdentity")).unwrap();
    let outcome = make("-j8 all");
    row.converges(outcome.and_then(|()| {
        let struck = fault.struck().len();
        (struck == 6).then_some(()).ok_or_else(|| format!("struck {struck} times"))
    }));
    drop(fault);
    row.keep().unwrap();
    make("-j8 destroy").unwrap();
}

/// Every operation of the families, each with every trouble: a row a trouble.
fn tried(cloud: &Cloud, families: &[Family], troubles: &[Trouble], chosen: fn(&str) -> bool) -> Vec<Row> {
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let running: Vec<_> = families
            .iter()
            .map(|family| scope.spawn(move || family_in_trouble(cloud, family, troubles, chosen)))
            .collect();
        running.into_iter().flat_map(|family| family.join().expect("no panic")).collect()
    });
    let mut rows: Vec<Row> =
        troubles.iter().map(|trouble| Row::new(format!("every AWS operation: {}", trouble.name))).collect();
    for Outcome { trouble, result } in outcomes {
        if troubles[trouble].passes { rows[trouble].converges(result) } else { rows[trouble].tells(result) }
    }
    rows
}

fn family_in_trouble(cloud: &Cloud, family: &Family, troubles: &[Trouble], chosen: fn(&str) -> bool) -> Vec<Outcome> {
    let mut known = BTreeSet::new();
    let mut outcomes = Vec::new();
    for case in &family.cases {
        let clean = family.clean(cloud, case, false).unwrap();
        let actions: BTreeSet<&String> =
            clean.calls.iter().filter(|action| !action.starts_with("registry:") && chosen(action)).collect();
        for action in actions {
            if !known.insert(action.clone()) {
                continue;
            }
            let times = clean.calls.iter().filter(|call| *call == action).count();
            for (trouble, Trouble { name, rules, passes }) in troubles.iter().enumerate() {
                // Whoever gives up has tried for a quarter of a minute: the first operation of each tool shows it.
                if !passes && known.len() > 1 {
                    continue;
                }
                case.prepare(cloud).unwrap();
                let result = one(cloud, family, case, (action.as_str(), times), rules, passes.then_some(&clean));
                let result = result.map_err(|wrong| format!("{}: {action} {name}: {wrong}", case.told(family)));
                outcomes.push(Outcome { trouble, result });
            }
        }
    }
    outcomes
}

/// One operation in one trouble: as `clean` when it passes, else told.
fn one(
    cloud: &Cloud,
    family: &Family,
    case: &Case,
    (action, times): (&str, usize),
    rules: &[Value],
    clean: Option<&Clean>,
) -> Result<(), String> {
    let count = cloud.fault(&on(&json!({"kind": "count", "times": EVER}), &family.agent, action)).unwrap();
    let faults: Vec<_> = rules.iter().map(|rule| cloud.fault(&on(rule, &family.agent, action)).unwrap()).collect();
    let output = case.step.run(cloud).unwrap();
    let (struck, tries) = (faults.iter().all(|fault| !fault.struck().is_empty()), count.struck().len());
    drop(faults);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !struck {
        return Err("nothing happened to it".to_owned());
    }
    let Some(clean) = clean else {
        let last: Value = serde_json::from_str(stderr.lines().last().unwrap_or_default()).unwrap_or_default();
        let named = last["error"]["message"].as_str().is_some_and(|message| message.contains(action))
            || last["error"]["causes"].to_string().contains(action);
        // Some are asked twice at the same time.
        let bounded = (ATTEMPTS..=ATTEMPTS * times).contains(&tries);
        let right = output.status.code() == Some(5) && named && bounded;
        return right.then_some(()).ok_or_else(|| format!("{tries} tries, {}: {stderr}", output.status));
    };
    // Operations that are waited for are asked again and again.
    if tries > times + ATTEMPTS {
        return Err(format!("{tries} tries instead of {times}"));
    }
    if !output.status.success() {
        return Err(format!("{}: {stderr}", output.status));
    }
    family.same(cloud, &String::from_utf8_lossy(&output.stdout), clean).map_err(|error| error.to_string())
}

/// The new role or provider is not seen everywhere at once.
fn eventually_consistent_iam(cloud: &Cloud) -> Row {
    let mut row = Row::new("IAM that is eventually consistent");
    let families = steps::aws(cloud).unwrap();
    let unseen = |skip: usize, times: usize| {
        json!({
            "kind": "error", "status": 404, "code": "NoSuchEntity", "skip": skip, "times": times,
            "message": "The role with name jobs cannot be found.",
        })
    };
    let case = |tool: &str, name: &str| {
        let family = families.iter().find(|family| family.tool == tool).unwrap();
        (family, family.cases.iter().find(|case| case.name == name).unwrap())
    };
    let (oidc, role) = (case("oidc-assoc", "oidc-assoc"), case("irsa-role", "irsa-role"));
    for ((family, case), action, rule) in [
        (oidc, "iam:GetOpenIDConnectProvider", unseen(1, 3)),
        (role, "iam:GetRole", unseen(1, 3)),
        (role, "iam:GetRole", unseen(2, 1)),
        (role, "iam:AttachRolePolicy", unseen(0, 2)),
        (role, "iam:PutRolePolicy", unseen(0, 2)),
        (role, "iam:ListAttachedRolePolicies", unseen(0, 2)),
        (role, "iam:ListRolePolicies", unseen(0, 2)),
        (role, "iam:GetRolePolicy", unseen(0, 1)),
    ] {
        let clean = family.clean(cloud, case, false).unwrap();
        case.prepare(cloud).unwrap();
        let result = one(cloud, family, case, (action, ATTEMPTS), &[rule], Some(&clean));
        row.converges(result.map_err(|wrong| format!("{action}: {wrong}")));
    }
    // A policy that does not exist is another thing: it is told at once.
    let (_, case) = role;
    let policy = Step::new(format!("{} --policy arn:aws:iam::aws:policy/None", case.step.command), &case.step.document);
    let output = policy.run(cloud).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = output.status.code() == Some(1) && stderr.contains("policy/None");
    row.tells(told.then_some(()).ok_or(stderr));
    case.prepare(cloud).unwrap();
    row
}

fn on(rule: &Value, agent: &str, action: &str) -> Value {
    let mut rule = rule.clone();
    rule["action"] = json!([action]);
    rule["agent"] = agent.into();
    rule
}
