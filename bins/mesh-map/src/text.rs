//! Knows how wide a text is, whatever font a reader has, and where a long one is broken.

/// An upper bound of a character's width in a bold font, in thousandths of the font's size. DejaVu Sans is the widest of
/// the common ones.
fn of_character(c: char) -> usize {
    match c {
        'i' | 'j' | 'l' | 'I' | 'J' | '.' | ',' | ':' | ';' | '|' | '!' | '\'' => 400,
        'f' | 'r' | 't' | '/' | '\\' | '(' | ')' | '[' | ']' | '-' | ' ' => 500,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '&' | '<' | '>' | '=' | '+' | '~' | '^' => 1120,
        'A'..='Z' => 880,
        _ if c.is_ascii() => 720,
        _ => 1200,
    }
}

/// An upper bound of a text's width.
pub fn width(text: &str, size: u8, bold: bool) -> i32 {
    let sum: usize = text.chars().map(of_character).sum();
    // A font is wider where it is bold.
    let thousandths = if bold { sum } else { sum * 9 / 10 };
    i32::try_from((thousandths * usize::from(size)).div_ceil(1000)).unwrap_or(i32::MAX / 2)
}

/// Breaks a text that is longer than so many characters, if possible behind what parts words. Nothing is lost.
pub fn broken(text: &str, length: usize) -> Vec<String> {
    let (mut lines, mut used) = (vec![String::new()], 0);
    for word in text.split_inclusive([' ', '/', ':', '.', '-']) {
        let count = word.chars().count();
        if used + count > length && count <= length {
            lines.push(String::new());
            used = 0;
        }
        for c in word.chars() {
            if used == length {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.push(c);
            }
            used += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_broken_behind_words() {
        for (text, expected) in [
            ("", &[""][..]),
            ("shop/web", &["shop/web"]),
            ("0123456789", &["0123456789"]),
            ("stock.shop.svc", &["stock.", "shop.svc"]),
            ("mesh/orders", &["mesh/", "orders"]),
            ("0123456789ab", &["0123456789", "ab"]),
            ("a-0123456789ab", &["a-01234567", "89ab"]),
            ("aa aaaaaaaa aa", &["aa ", "aaaaaaaa ", "aa"]),
        ] {
            assert_eq!(broken(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn a_bold_text_is_wider_than_another_and_a_large_than_a_small_one() {
        for (text, size, bold, expected) in [
            ("", 12, true, 0),
            ("web", 12, true, 31),
            ("web", 12, false, 28),
            ("web", 11, false, 26),
            ("é", 10, true, 12),
        ] {
            assert_eq!(width(text, size, bold), expected, "{text} {size} {bold}");
        }
    }
}
