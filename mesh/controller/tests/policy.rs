//! Makes `policies/controller.json`, what the controller must be allowed in AWS, from the calls in its code.
//! After a change of a call: `SNAPSHOTS=overwrite cargo test --workspace --test policy`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::{collections::BTreeSet, fs, path::Path};

/// What Cloud Map needs of its caller besides the right to a call: it tags what is made with tags, and changes the DNS
/// records of an instance in its caller's name.
const ALSO: [(&str, &str); 3] = [
    ("CreateService", "servicediscovery:TagResource"),
    ("RegisterInstance", "route53:ChangeResourceRecordSets"),
    ("DeregisterInstance", "route53:ChangeResourceRecordSets"),
];

/// What follows `before` in a text, up to the first `end`, as often as it occurs.
fn after<'a>(text: &'a str, before: &str, end: char) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(end).next())
}

/// `list_namespaces` as `ListNamespaces`.
fn pascal(snake: &str) -> String {
    snake.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

#[test]
fn the_policy_is_what_the_code_calls() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    // Whoever may do nothing may still ask STS who they are.
    assert_eq!(after(&manifest, "\naws-sdk-", '.').collect::<Vec<_>>(), ["servicediscovery", "sts"]);
    let sts = fs::read_to_string(package.join("src/cloudmap/account.rs")).unwrap();
    assert_eq!(
        after(&sts, "aws_sdk_sts::", ';').collect::<Vec<_>>(),
        ["Client::new(config).get_caller_identity().send().await"]
    );

    let source = fs::read_to_string(package.join("src/cloudmap/client.rs")).unwrap();
    let (source, _) = source.split_once("#[cfg(test)]").unwrap();
    let called: BTreeSet<String> = after(source, "self.client.", '(').map(pascal).collect();
    let counted = ["self.answered(\"", "self.found(\"", "OPERATION: &str = \""];
    let counted: BTreeSet<String> = counted.iter().flat_map(|of| after(source, of, '"')).map(str::to_owned).collect();
    assert_eq!(called, counted, "every call is counted by its name");

    let also = ALSO.iter().filter(|(call, _)| called.contains(*call)).map(|(_, action)| (*action).to_owned());
    let actions: BTreeSet<String> = called.iter().map(|call| format!("servicediscovery:{call}")).chain(also).collect();
    let policy = tests::policy::allowing(&actions);
    let committed = tests::root().join("policies/controller.json");
    let assert = snapbox::Assert::new().action_env("SNAPSHOTS");
    assert.eq(format!("{policy:#}\n"), snapbox::Data::read_from(&committed, None).raw());
}
