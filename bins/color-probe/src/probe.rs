//! Waiting for the first answer, then asking as often as wanted.

use crate::answer::{Answer, Wrong};
use crate::answers::{Answers, misled};
use crate::expect::Expect;
use crate::http::{Http, PATIENCE};
use crate::plan::{Ask, Want};
use anyhow::Result;
use common::{Error, Found, Session};
use futures::{StreamExt as _, stream};
use reqwest::Url;
use std::time::{Duration, Instant};

/// How long wrong answers are taken for a beginning. Behind a front end that answers, only the way to the back end can
/// still be missing, and Cloud Map and Envoy need seconds for that.
const SETTLING: Duration = Duration::from_secs(60);

const BAR: &str = "{pos}/{len} {wide_bar} {eta}";

/// Waits until the name resolves, somebody answers, and the answer is a colour.
///
/// # Errors
/// [`common::Kind::Failed`] with the last wrong answer when no colour came, [`common::Kind::Retry`] when nobody answered
/// at all within `--timeout`.
pub async fn first_answer(session: &Session, http: &Http, url: &Url, expect: &Expect) -> Result<()> {
    let mut wrong: Option<Wrong> = None;
    let mut since = None;
    let waited = session
        .wait(format_args!("{url} to answer"), async || {
            match http.ask(url, expect, PATIENCE.min(session.remaining())).await.0 {
                Answer::Color(_) => Ok(Found::Ready(())),
                Answer::Silence(reason) => Ok(Found::NotYet(reason)),
                Answer::Wrong(answer) => {
                    let reason = wrong.insert(answer).to_string();
                    if since.get_or_insert_with(Instant::now).elapsed() > SETTLING {
                        return Err(Error::failed(reason).into());
                    }
                    Ok(Found::NotYet(reason))
                }
            }
        })
        .await;
    waited.map_err(|error| wrong.map_or(error, |wrong| misled(url.as_str(), &wrong, None).into()))
}

/// Asks as often as wanted, so many at a time.
///
/// # Errors
/// [`common::Kind::Retry`] when `--timeout` passes before the last answer.
pub async fn ask(session: &Session, http: &Http, ask: &Ask, want: &Want) -> Result<Answers> {
    let mut answers = Answers::new(&want.expect)?;
    let bar = session.stderr.bar(ask.count.into(), BAR);
    let at_a_time = usize::try_from(want.concurrency)?;
    let asked = async {
        let mut asking =
            stream::iter(0..ask.count).map(|_| http.ask(&ask.url, &want.expect, PATIENCE)).buffer_unordered(at_a_time);
        while let Some((answer, took)) = asking.next().await {
            answers.add(answer, took);
            bar.inc(1);
        }
    };
    let in_time = tokio::time::timeout(session.remaining(), asked).await;
    bar.finish_and_clear();
    match in_time {
        Ok(()) => Ok(answers),
        Err(_) => {
            let message = format!("{} gave {} of {} answers in time", ask.url, answers.total(), ask.count);
            Err(Error::retry(message).hint("give it more time with --timeout").into())
        }
    }
}
