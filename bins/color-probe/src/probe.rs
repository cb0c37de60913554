//! Waiting for good answers, then asking as often as wanted.

use crate::answer::Answer;
use crate::answers::{Answers, misled};
use crate::direct::Idle;
use crate::expect::Expect;
use crate::http::{Asked, Http, after};
use crate::plan::{Ask, Until, Want};
use crate::target::{self, shown};
use anyhow::Result;
use common::{Error, Found, Kind, Session, classify};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at};

/// How long wrong answers are taken for a beginning. Behind a front end that answers, only the way to the back end can
/// still be missing, and Cloud Map and Envoy need seconds for that.
const SETTLING: Duration = Duration::from_secs(60);

/// How many good answers in a row count as a beginning: a load balancer's name has several addresses, and not every one
/// knows every target yet.
const IN_A_ROW: usize = 5;

/// How often the progress bar is told how far the requests are.
const GLANCE: Duration = Duration::from_millis(100);

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
    pub async fn ask(&mut self, session: &Session, http: Http, what: &Ask, want: &Want) -> Result<()> {
        let since = Instant::now();
        let idle = Idle::default();
        let good = first_answers(session, &http, &idle, &want.expect).await;
        self.waited = since.elapsed();
        good?;
        let since = Instant::now();
        let asked = ask(session, (http, idle), what, want, &mut self.answers).await;
        self.asked = since.elapsed();
        asked
    }
}

/// Waits until the name resolves, somebody answers, and some answers in a row are colours.
///
/// # Errors
/// [`common::Kind::Failed`] with the answer when it was wrong in the end, [`common::Kind::Retry`] when nobody answered
/// within `--timeout`.
async fn first_answers(session: &Session, http: &Http, idle: &Idle, expect: &Expect) -> Result<()> {
    let (url, shown) = (http.url(), shown(http.url()));
    let (mut wrong, mut since) = (None, None);
    let waited = session
        .wait(format_args!("{shown} to answer"), async || {
            for _ in 0..IN_A_ROW {
                let left = session.remaining();
                match http.ask(idle, expect, left).await?.answer {
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
        return Err(misled(&shown, &wrong, None).into());
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
async fn ask(
    session: &Session,
    (http, idle): (Http, Idle),
    ask: &Ask,
    want: &Want,
    answers: &mut Answers,
) -> Result<()> {
    let bar = match ask.until {
        Until::Count(count) => session.stderr.bar(count.into(), COUNTED),
        Until::Time(_) => session.stderr.bar(0, TIMED),
    };
    let asking = Arc::new(Asking {
        http,
        expect: want.expect.clone(),
        since: Instant::now(),
        starts: Starts::new(ask.until, want.rate),
        answers: Mutex::new(answers.clone()),
    });
    let idle = Arc::new(idle);
    // Each in a task of its own: an answer then concerns no other's.
    let mut askers = JoinSet::new();
    for _ in 0..ask.until.count().unwrap_or(u32::MAX).min(want.concurrency) {
        let (asking, idle) = (asking.clone(), idle.clone());
        askers.spawn(async move { asking.ask(&idle).await });
    }
    let asked = async {
        let mut glance = interval(GLANCE);
        loop {
            select! {
                asked = askers.join_next() => match asked {
                    Some(asked) => asked??,
                    None => return anyhow::Ok(()),
                },
                _ = glance.tick() => bar.set_position(asking.answers().total()),
            }
        }
    };
    let in_time = timeout(session.remaining(), asked).await;
    bar.finish_and_clear();
    answers.clone_from(&asking.answers());
    match in_time {
        Ok(asked) => asked,
        Err(_) => {
            let of = ask.until.count().map(|count| format!(" of {count}")).unwrap_or_default();
            let message = format!("{} gave {}{of} answers in time", shown(&ask.url), answers.total());
            Err(Error::retry(message).hint("give it more time with --timeout").into())
        }
    }
}

/// What those who ask at a time share.
struct Asking {
    http: Http,
    expect: Expect,
    since: Instant,
    starts: Starts,
    answers: Mutex<Answers>,
}

impl Asking {
    /// Asks again and again, as long as a request is to start.
    async fn ask(&self, idle: &Idle) -> Result<()> {
        while self.starts.next().await {
            let Asked { answer, began, ended } = self.http.ask(idle, &self.expect, Duration::MAX).await?;
            self.answers().add(answer, ended - self.since, ended - began);
        }
        Ok(())
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When requests start: at once, unless there is a rate.
struct Starts {
    until: Limit,
    clock: Option<tokio::sync::Mutex<Interval>>,
}

/// When no more of them do.
enum Limit {
    /// After so many more.
    Count(AtomicU32),
    Time(Instant),
}

impl Starts {
    /// From now on.
    fn new(until: Until, rate: Option<u32>) -> Self {
        let clock = |rate| {
            let mut clock = interval(Duration::from_secs(1) / rate);
            // Slow answers are not made up for: a rate is an upper limit.
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            clock.into()
        };
        let until = match until {
            Until::Count(count) => Limit::Count(count.into()),
            Until::Time(time) => Limit::Time(after(Instant::now(), time.0)),
        };
        Self { until, clock: rate.map(clock) }
    }

    /// Waits until the next may start; false if none is to.
    async fn next(&self) -> bool {
        let tick = async |clock: &tokio::sync::Mutex<Interval>| {
            clock.lock().await.tick().await;
        };
        match (&self.until, &self.clock) {
            (Limit::Count(left), clock) => {
                let one_less = |left: u32| left.checked_sub(1);
                let any = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
                if let Some(clock) = clock.as_ref().filter(|_| any) {
                    tick(clock).await;
                }
                any
            }
            (Limit::Time(end), Some(clock)) => timeout_at(*end, tick(clock)).await.is_ok(),
            (Limit::Time(end), None) => Instant::now() < *end,
        }
    }
}
