//! The same properties under libFuzzer. A test starts itself once more, as the fuzzer, which ends its process when it is
//! done. What it found stays in `build/fuzz/`: the next run begins with that.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use super::SPOILERS;
use bolero_engine::{Engine, driver::Options};
use bolero_libfuzzer::LibFuzzerEngine;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use std::fs::{create_dir_all, write};
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::process::Command;

/// The fuzzer's arguments, by the name that its engine knows. Whoever has them is the fuzzer.
const ARGS: &str = "BOLERO_LIBFUZZER_ARGS";

/// Bytes and text are libFuzzer's own, the samples to begin with: what a parser compares them to, libFuzzer sees and can
/// write there. What has several parts is what its strategy makes of libFuzzer's bytes in place of random ones.
#[macro_export]
macro_rules! property {
    ($(#![$config:meta])? #[test] fn $name:ident($input:ident in spoiled($samples:expr)) $body:block) => {
        #[test]
        fn $name() {
            let read = |bytes: &[u8]| Some(bytes.to_vec());
            let test = concat!(module_path!(), "::", stringify!($name));
            $crate::hostile::fuzz::run(test, $samples, read, |$input| { $body Ok(()) });
        }
    };
    ($(#![$config:meta])? #[test] fn $name:ident($input:ident in spoiled_text($samples:expr)) $body:block) => {
        #[test]
        fn $name() {
            let read = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned());
            let test = concat!(module_path!(), "::", stringify!($name));
            $crate::hostile::fuzz::run(test, $samples, read, |$input| { $body Ok(()) });
        }
    };
    ($(#![$config:meta])? #[test] fn $name:ident($($input:ident in $strategy:expr),+ $(,)?) $body:block) => {
        #[test]
        fn $name() {
            let strategy = ($($strategy,)+);
            let samples = $crate::hostile::fuzz::recorded(&strategy);
            let read = |bytes: &[u8]| $crate::hostile::fuzz::chosen(&strategy, bytes);
            let test = concat!(module_path!(), "::", stringify!($name));
            $crate::hostile::fuzz::run(test, samples, read, |($($input,)+)| { $body Ok(()) });
        }
    };
}

/// A runner whose random numbers come from somewhere else.
fn runner(algorithm: RngAlgorithm, bytes: &[u8]) -> TestRunner {
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(algorithm, bytes))
}

/// The bytes of some random values.
pub fn recorded(strategy: &impl Strategy) -> Vec<Vec<u8>> {
    let record = |seed: u8| {
        let mut runner = runner(RngAlgorithm::Recorder, &[seed; 32]);
        strategy.new_tree(&mut runner).map(|_| runner.bytes_used())
    };
    (0..64).filter_map(|seed| record(seed).ok()).collect()
}

/// The value of these bytes, if the strategy makes one of them.
pub fn chosen<S: Strategy>(strategy: &S, bytes: &[u8]) -> Option<S::Value> {
    // After its last byte a runner reads zeros, which rand may refuse for ever; ones are the least of a range.
    let bytes = [bytes, &[1; 1 << 16]].concat();
    strategy.new_tree(&mut runner(RngAlgorithm::PassThrough, &bytes)).ok().map(|tree| tree.current())
}

/// Tries a property for `FUZZ_SECONDS`, or with the file `FUZZ_INPUT` alone.
///
/// # Panics
/// It fails: the input stays as a file.
pub fn run<T: AsRef<[u8]>, V>(
    test: &str,
    samples: impl IntoIterator<Item = T>,
    read: impl Fn(&[u8]) -> Option<V>,
    property: impl Fn(V) -> TestCaseResult,
) {
    if std::env::var_os(ARGS).is_some() {
        let holds = AssertUnwindSafe(|bytes: &[u8]| {
            if let Some(Err(TestCaseError::Fail(reason))) = read(bytes).map(&property) {
                panic!("{reason}");
            }
        });
        return LibFuzzerEngine::default().run(|bytes: &[u8]| holds(bytes), Options::default());
    }

    let (_, test) = test.split_once("::").unwrap();
    let name = test.rsplit("::").next().unwrap();
    let folder = format!("build/fuzz/{name}");
    let file = |name: &str| crate::root().join(&folder).join(name);
    create_dir_all(file("corpus")).unwrap();
    for (number, sample) in samples.into_iter().enumerate() {
        write(file(&format!("corpus/sample-{number}")), sample).unwrap();
    }
    let escaped = |word: &&str| word.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let words: String = SPOILERS.iter().map(|word| format!("\"{}\"\n", escaped(word))).collect();
    write(file("words"), words).unwrap();

    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let input = variable("FUZZ_INPUT");
    let args = input.clone().unwrap_or_else(|| {
        let seconds = variable("FUZZ_SECONDS").unwrap_or_default();
        format!("{folder}/corpus -dict={folder}/words -artifact_prefix={folder}/ -timeout=30 -max_total_time={seconds}")
    });
    let mut fuzzer = Command::new(std::env::current_exe().unwrap());
    fuzzer.args(["--exact", "--nocapture", test]).current_dir(crate::root()).env(ARGS, args);
    let output = fuzzer.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    write(file("log"), &*log).unwrap();

    let word = |line: &str, key: &str| {
        let line = log.lines().rfind(|there| there.contains(line)).unwrap_or_default();
        line.split_once(key).and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?").to_owned()
    };
    if !output.status.success() {
        let progress = |line: &str| ["#", "\t", "INFO:", "WARNING:"].iter().any(|mark| line.starts_with(mark));
        let said: String = log.lines().filter(|line| !progress(line)).map(|line| format!("{line}\n")).collect();
        let input = input.unwrap_or_else(|| word("Test unit written", "written to "));
        panic!("{said}Once more: make fuzz PROPERTY={name} INPUT={input}");
    }
    let told = match input {
        Some(input) => format!("{name}: {input} does no harm\n"),
        None => {
            let (inputs, from, to) = (word("DONE", "#"), word("INITED", "cov: "), word("DONE", "cov: "));
            format!("{name}: {inputs} inputs, from {from} to {to} edges of the code\n")
        }
    };
    // Not println, which a passing test keeps to itself.
    std::io::stdout().write_all(told.as_bytes()).unwrap();
}
