//! Tells what one request brought. Pure.

use crate::expect::Expect;
use std::fmt;

/// Longest part of a body that is quoted.
const QUOTED: usize = 300;

/// What a proxy or the front end says when the back end can't be reached: Envoy's own texts (its local replies), and
/// feapp's.
const CUT_OFF: [&str; 4] =
    ["upstream connect error", "no healthy upstream", "upstream request timeout", "colorapp at http://"];

/// One answer, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// One of the expected colours.
    Color(String),
    /// Anything else that a server said.
    Wrong(Wrong),
    /// Nobody said anything: the name, the connection or the patience failed, for this reason.
    Silence(String),
}

/// An answer that is none of the expected colours, or not meant as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wrong {
    /// HTTP status; 200 proves nothing, for some front ends pass a proxy's text on with it.
    pub status: u16,
    /// Text, trimmed and cut.
    pub body: String,
}

impl Answer {
    /// Judges an HTTP answer. Space around a colour, such as a newline, is no matter.
    pub fn of(expect: &Expect, status: u16, body: &str) -> Self {
        let body = body.trim();
        if (200..300).contains(&status) && expect.has(body) {
            return Self::Color(body.to_owned());
        }
        Self::Wrong(Wrong { status, body: body.chars().take(QUOTED).collect() })
    }
}

impl Wrong {
    /// Whether a load balancer said it, for want of a target that it knows to be healthy: that passes.
    pub fn is_of_a_gateway(&self) -> bool {
        (502..=504).contains(&self.status) && !self.is_cut_off()
    }

    /// Whether the front end works and only the way from it to the back end does not.
    pub fn is_cut_off(&self) -> bool {
        CUT_OFF.iter().any(|text| self.body.contains(text))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answered {} {:?}", self.status, self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_expected_color_is_one() {
        let expect = Expect::red_and_blue();
        let color = |color: &str| Answer::Color(color.to_owned());
        let wrong = |status, body: &str| Answer::Wrong(Wrong { status, body: body.to_owned() });
        for (status, body, answer) in [
            (200, "red", color("red")),
            (200, "blue\n", color("blue")),
            (204, "", wrong(204, "")),
            (200, "green", wrong(200, "green")),
            (200, "Red", wrong(200, "Red")),
            (503, "red", wrong(503, "red")),
            (302, "red", wrong(302, "red")),
        ] {
            assert_eq!(Answer::of(&expect, status, body), answer);
        }
        let long = "x".repeat(QUOTED + 1);
        assert_eq!(Answer::of(&expect, 200, &long), wrong(200, &long[1..]));
    }

    #[test]
    fn a_proxys_refusal_is_told_from_any_other_answer() {
        for (body, cut_off) in [
            ("upstream connect error or disconnect/reset before headers. reset reason: connection timeout", true),
            ("no healthy upstream", true),
            ("upstream request timeout", true),
            ("colorapp at http://colorapp:8080/ did not answer in time", true),
            ("<html>404</html>", false),
            ("", false),
        ] {
            assert_eq!(Wrong { status: 200, body: body.to_owned() }.is_cut_off(), cut_off, "{body}");
            let unavailable = Wrong { status: 503, body: body.to_owned() };
            assert_eq!(unavailable.is_of_a_gateway(), !cut_off, "{body}");
        }
    }
}
