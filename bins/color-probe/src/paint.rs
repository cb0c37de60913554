//! Chooses the colours in which answers are drawn. Pure.

/// The named colours of CSS (CSS Color Module Level 4, 6.1).
const NAMED: &str = "aliceblue antiquewhite aqua aquamarine azure beige bisque black blanchedalmond blue blueviolet brown burlywood \
    cadetblue chartreuse chocolate coral cornflowerblue cornsilk crimson cyan darkblue darkcyan darkgoldenrod darkgray \
    darkgreen darkgrey darkkhaki darkmagenta darkolivegreen darkorange darkorchid darkred darksalmon darkseagreen \
    darkslateblue darkslategray darkslategrey darkturquoise darkviolet deeppink deepskyblue dimgray dimgrey dodgerblue \
    firebrick floralwhite forestgreen fuchsia gainsboro ghostwhite gold goldenrod gray green greenyellow grey honeydew \
    hotpink indianred indigo ivory khaki lavender lavenderblush lawngreen lemonchiffon lightblue lightcoral lightcyan \
    lightgoldenrodyellow lightgray lightgreen lightgrey lightpink lightsalmon lightseagreen lightskyblue \
    lightslategray lightslategrey lightsteelblue lightyellow lime limegreen linen magenta maroon mediumaquamarine \
    mediumblue mediumorchid mediumpurple mediumseagreen mediumslateblue mediumspringgreen mediumturquoise \
    mediumvioletred midnightblue mintcream mistyrose moccasin navajowhite navy oldlace olive olivedrab orange \
    orangered orchid palegoldenrod palegreen paleturquoise palevioletred papayawhip peachpuff peru pink plum \
    powderblue purple rebeccapurple red rosybrown royalblue saddlebrown salmon sandybrown seagreen seashell sienna \
    silver skyblue slateblue slategray slategrey snow springgreen steelblue tan teal thistle tomato turquoise violet \
    wheat white whitesmoke yellow yellowgreen";

/// Seven colours that colour-blind people can tell apart, too (Okabe and Ito, 2008); last those that are near to `blue`, `red`
/// and `green`.
const PALETTE: [&str; 7] = ["#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#009e73", "#0072b2", "#d55e00"];

/// A colour for each answer: its own if its name is one, else the next of the palette.
pub fn paints<'a>(answers: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = &'static str> {
    let mut palette = PALETTE.iter().cycle();
    answers.into_iter().map(move |answer| {
        let own = NAMED.split(' ').find(|name| name.eq_ignore_ascii_case(answer));
        own.or_else(|| palette.next().copied()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_names_a_color_has_it_and_others_differ() {
        assert_eq!(NAMED.split(' ').count(), 148);
        let answers = ["v1", "Red", "inherit", "yellowgreen", "aliceblue", "v2"].map(str::to_owned);
        let expected = [PALETTE[0], "red", PALETTE[1], "yellowgreen", "aliceblue", PALETTE[2]];
        assert!(paints(&answers).eq(expected));
    }
}
