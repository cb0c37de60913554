//! Tells clusters apart that have the same name. Pure.

use common::arn::Arn;

/// What each cluster is called in a picture, by its name and, if it is known, its ARN: its name, with its region or its
/// account beside it as far as another of the name makes them needed.
pub fn told_apart(clusters: &[(String, Option<String>)]) -> Vec<String> {
    let place = |arn: &Option<String>| {
        let Arn { region, account, .. } = Arn::parse(arn.as_deref()?)?;
        Some((region.to_owned(), account.to_owned()))
    };
    let label = |at: usize, (name, arn): &(String, Option<String>)| {
        let Some((region, account)) = place(arn) else { return name.clone() };
        let namesakes =
            clusters.iter().enumerate().filter(|(other, (other_name, _))| *other != at && other_name == name);
        let places = namesakes.filter_map(|(_, (_, arn))| place(arn));
        let places: Vec<_> = places.filter(|other| *other != (region.clone(), account.clone())).collect();
        let in_region = places.iter().any(|(other, _)| *other == region);
        let in_account = places.iter().any(|(_, other)| *other == account);
        match (places.is_empty(), in_region, in_account) {
            (true, ..) => name.clone(),
            (_, false, _) => format!("{name} ({region})"),
            (_, true, false) => format!("{name} ({account})"),
            (_, true, true) => format!("{name} ({region}, {account})"),
        }
    };
    clusters.iter().enumerate().map(|(at, cluster)| label(at, cluster)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_the_same_elsewhere() {
        type Case<'a> = (&'a [(&'a str, Option<&'a str>)], &'a [&'a str]);
        let (west, east) = (Some("us-west-2:1"), Some("us-east-1:1"));
        let (west_2, east_2) = (Some("us-west-2:2"), Some("us-east-1:2"));
        let cases: [Case<'_>; 7] = [
            (&[("shop", west), ("stock", east)], &["shop", "stock"]),
            (&[("shop", west), ("shop", east)], &["shop (us-west-2)", "shop (us-east-1)"]),
            (&[("shop", west), ("shop", west_2)], &["shop (1)", "shop (2)"]),
            (&[("shop", west), ("shop", east_2)], &["shop (us-west-2)", "shop (us-east-1)"]),
            (
                &[("shop", west), ("shop", east), ("shop", west_2), ("stock", west)],
                &["shop (us-west-2, 1)", "shop (us-east-1)", "shop (2)", "stock"],
            ),
            (&[("shop", west), ("shop", None)], &["shop", "shop"]),
            (&[("shop", west), ("shop", west)], &["shop", "shop"]),
        ];
        for (clusters, expected) in cases {
            let arn = |place: &str, name: &str| format!("arn:aws:eks:{place}:cluster/{name}");
            let clusters =
                clusters.iter().map(|(name, place)| ((*name).to_owned(), place.map(|place| arn(place, name))));
            assert_eq!(told_apart(&clusters.collect::<Vec<_>>()), expected);
        }
    }
}
