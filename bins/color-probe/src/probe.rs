//! Waiting for the first answer, then asking as often as wanted.

use crate::answer::{Answer, Wrong};
use crate::answers::{Answers, misled};
use crate::expect::Expect;
use crate::http::Http;
use crate::plan::{Ask, Until, Want};
use anyhow::Result;
use common::{Error, Found, Session, roots};
use futures::stream::LocalBoxStream;
use futures::{StreamExt as _, stream};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long wrong answers are taken for a beginning. Behind a front end that answers, only the way to the back end can
/// still be missing, and Cloud Map and Envoy need seconds for that.
const SETTLING: Duration = Duration::from_secs(60);

const COUNTED: &str = "{pos}/{len} {wide_bar} {eta}";
const TIMED: &str = "{pos} {elapsed}";

/// Waits until the name resolves, somebody answers, and the answer is a colour.
///
/// # Errors
/// [`common::Kind::Failed`] with the last wrong answer when no colour came, [`common::Kind::Retry`] when nobody answered
/// at all within `--timeout`.
pub async fn first_answer(session: &Session, http: &Http, expect: &Expect) -> Result<()> {
    let url = http.url();
    let mut wrong: Option<Wrong> = None;
    let mut since = None;
    let waited = session
        .wait(format_args!("{url} to answer"), async || match http.ask(expect, session.remaining()).await.0 {
            Answer::Color(_) => Ok(Found::Ready(())),
            Answer::Silence(reason) if reason.contains("UnknownIssuer") => {
                Err(Error::failed(format!("{url}: {reason}")).hint(roots::hint()).into())
            }
            Answer::Silence(reason) => Ok(Found::NotYet(reason)),
            Answer::Wrong(answer) => {
                let reason = wrong.insert(answer).to_string();
                if since.get_or_insert_with(Instant::now).elapsed() > SETTLING {
                    return Err(Error::failed(reason).into());
                }
                Ok(Found::NotYet(reason))
            }
        })
        .await;
    waited.map_err(|error| wrong.map_or(error, |wrong| misled(url.as_str(), &wrong, None).into()))
}

/// Asks as often or as long as wanted, so many at a time.
///
/// # Errors
/// [`common::Kind::Retry`] when `--timeout` passes before the last answer.
pub async fn ask(session: &Session, http: &Http, ask: &Ask, want: &Want) -> Result<Answers> {
    let mut answers = Answers::new(&want.expect)?;
    let bar = match ask.until {
        Until::Count(count) => session.stderr.bar(count.into(), COUNTED),
        Until::Time(_) => session.stderr.bar(0, TIMED),
    };
    let at_a_time = usize::try_from(want.concurrency)?;
    let asked = async {
        let requests = starts(ask.until, want.rate).map(|()| http.ask(&want.expect, Duration::MAX));
        let mut asking = requests.buffer_unordered(at_a_time);
        while let Some((answer, took)) = asking.next().await {
            answers.add(answer, took);
            bar.inc(1);
        }
    };
    let in_time = timeout(session.remaining(), asked).await;
    bar.finish_and_clear();
    match in_time {
        Ok(()) => Ok(answers),
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
