//! Waiting for good answers, then asking as often as wanted.

use crate::answer::Answer;
use crate::answers::{Answers, misled};
use crate::expect::Expect;
use crate::http::Http;
use crate::plan::{Ask, Until, Want};
use crate::target;
use anyhow::Result;
use common::{Error, Found, Kind, Session, classify};
use futures::stream::LocalBoxStream;
use futures::{StreamExt as _, stream};
use std::time::{Duration, Instant, SystemTime};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long wrong answers are taken for a beginning. Behind a front end that answers, only the way to the back end can
/// still be missing, and Cloud Map and Envoy need seconds for that.
const SETTLING: Duration = Duration::from_secs(60);

/// How many good answers in a row count as a beginning: a load balancer's name has several addresses, and not every one
/// knows every target yet.
const IN_A_ROW: usize = 5;

const COUNTED: &str = "{pos}/{len} {wide_bar} {eta}";
const TIMED: &str = "{pos} {elapsed}";

/// What the requests of a run brought, also of one that fails.
pub struct Run {
    pub answers: Answers,
    /// When it began to wait for good answers.
    pub began: SystemTime,
    /// How long it waited for them.
    pub waited: Duration,
    /// How long it then asked.
    pub asked: Duration,
}

impl Run {
    /// One that begins now.
    pub fn new(expect: &Expect) -> Result<Self> {
        let (waited, asked) = (Duration::ZERO, Duration::ZERO);
        Ok(Self { answers: Answers::new(expect)?, began: SystemTime::now(), waited, asked })
    }

    /// Waits for good answers, then asks as often or as long as wanted.
    ///
    /// # Errors
    /// As those of its two parts.
    pub async fn ask(&mut self, session: &Session, http: &Http, what: &Ask, want: &Want) -> Result<()> {
        let since = Instant::now();
        let good = first_answers(session, http, &want.expect).await;
        self.waited = since.elapsed();
        good?;
        let since = Instant::now();
        let asked = ask(session, http, what, want, &mut self.answers).await;
        self.asked = since.elapsed();
        asked
    }
}

/// Waits until the name resolves, somebody answers, and some answers in a row are colours.
///
/// # Errors
/// [`common::Kind::Failed`] with the answer when it was wrong in the end, [`common::Kind::Retry`] when nobody answered
/// within `--timeout`.
async fn first_answers(session: &Session, http: &Http, expect: &Expect) -> Result<()> {
    let url = http.url();
    let (mut wrong, mut since) = (None, None);
    let waited = session
        .wait(format_args!("{url} to answer"), async || {
            for _ in 0..IN_A_ROW {
                let left = session.remaining();
                match http.ask(expect, left).await?.0 {
                    Answer::Color(_) => {}
                    Answer::Silence(reason) => {
                        // Whoever had no time to answer has not fallen silent.
                        wrong = wrong.take().filter(|_| left < http.patience());
                        return Ok(Found::NotYet(reason));
                    }
                    Answer::Wrong(answer) => {
                        let (reason, passes) = (answer.to_string(), answer.is_of_a_gateway());
                        wrong = Some(answer);
                        if !passes && since.get_or_insert_with(Instant::now).elapsed() > SETTLING {
                            return Err(Error::failed(reason).into());
                        }
                        return Ok(Found::NotYet(reason));
                    }
                }
            }
            Ok(Found::Ready(()))
        })
        .await;
    let Err(error) = waited else { return Ok(()) };
    if let Some(wrong) = wrong {
        return Err(misled(url.as_str(), &wrong, None).into());
    }
    match (classify(&error).0, target::private_addresses(url).await) {
        (Kind::Retry, Some(addresses)) => {
            let hint = format!(
                "its address is private ({addresses}): ask from within the VPC or with --via-cluster, or make the load balancer \
                 internet-facing"
            );
            Err(Error::retry(error.to_string()).hint(hint).into())
        }
        _ => Err(error),
    }
}

/// Asks as often or as long as wanted, so many at a time.
///
/// # Errors
/// [`common::Kind::Retry`] when `--timeout` passes before the last answer.
async fn ask(session: &Session, http: &Http, ask: &Ask, want: &Want, answers: &mut Answers) -> Result<()> {
    let bar = match ask.until {
        Until::Count(count) => session.stderr.bar(count.into(), COUNTED),
        Until::Time(_) => session.stderr.bar(0, TIMED),
    };
    let (at_a_time, since) = (usize::try_from(want.concurrency)?, Instant::now());
    let asked = async {
        let requests = starts(ask.until, want.rate).map(|()| http.ask(&want.expect, Duration::MAX));
        let mut asking = requests.buffer_unordered(at_a_time);
        while let Some(asked) = asking.next().await {
            let (answer, took) = asked?;
            answers.add(answer, since.elapsed(), took);
            bar.inc(1);
        }
        anyhow::Ok(())
    };
    let in_time = timeout(session.remaining(), asked).await;
    bar.finish_and_clear();
    match in_time {
        Ok(asked) => asked,
        Err(_) => {
            let of = ask.until.count().map(|count| format!(" of {count}")).unwrap_or_default();
            let message = format!("{} gave {}{of} answers in time", ask.url, answers.total());
            Err(Error::retry(message).hint("give it more time with --timeout").into())
        }
    }
}

/// When requests start: at once, unless there is a rate.
fn starts(until: Until, rate: Option<u32>) -> LocalBoxStream<'static, ()> {
    let starts = match rate {
        None => stream::repeat(()).boxed_local(),
        Some(rate) => {
            let mut clock = interval(Duration::from_secs(1) / rate);
            // Slow answers are not made up for: a rate is an upper limit.
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            stream::unfold(clock, async |mut clock| {
                clock.tick().await;
                Some(((), clock))
            })
            .boxed_local()
        }
    };
    match until {
        Until::Count(count) => starts.take(count as usize).boxed_local(),
        Until::Time(time) => starts.take_until(sleep(time.0)).boxed_local(),
    }
}
