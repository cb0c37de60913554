//! oidc-assoc: the identity provider of an issuer.

use super::region::{Region, with};
use serde_json::{Value, json};

fn oidc(document: &str) -> (String, String, Value) {
    let section = serde_json::from_str::<Value>(document).unwrap()["oidc"].take();
    let text = |key: &str| section[key].as_str().unwrap().to_owned();
    let (arn, url) = (text("arn"), text("url"));
    let parameters = json!({"OpenIDConnectProviderArn": arn});
    (arn, url, parameters)
}

pub fn drift(region: &Region, one: &str) {
    let (arn, url, provider) = oidc(one);
    region.steady("oidc-assoc", one);

    region.aws(
        "iam",
        "remove_client_id_from_open_id_connect_provider",
        with(&provider, json!({"ClientID": "sts.amazonaws.com"})),
    );
    let add = format!("add audience sts.amazonaws.com to {arn}");
    region.restores("oidc-assoc", one, &[&add], &["iam:AddClientIDToOpenIDConnectProvider"]);

    region.aws("iam", "delete_open_id_connect_provider", provider.clone());
    let create = format!("create provider {url} for sts.amazonaws.com");
    region.restores("oidc-assoc", one, &[&create], &["iam:CreateOpenIDConnectProvider"]);

    // An audience that others added is theirs.
    region.aws("iam", "add_client_id_to_open_id_connect_provider", with(&provider, json!({"ClientID": "theirs"})));
    region.steady("oidc-assoc", one);
    let have = region.aws("iam", "get_open_id_connect_provider", provider);
    assert_eq!(have["ClientIDList"], json!(["sts.amazonaws.com", "theirs"]));
}

pub fn of_others(region: &Region, one: &str) {
    let (arn, url, provider) = oidc(one);
    let remove = || {
        region.aws(
            "iam",
            "remove_client_id_from_open_id_connect_provider",
            with(&provider, json!({"ClientID": "sts.amazonaws.com"})),
        )
    };
    region.aws("iam", "untag_open_id_connect_provider", with(&provider, json!({"TagKeys": ["managed-by"]})));
    let used = format!("provider {arn} is used, not made by crossmesh: --adopt takes it over");
    region.steady("oidc-assoc", one).tells(&used);

    // What it lacks it gets, and nothing else changes.
    remove();
    let add = format!("add audience sts.amazonaws.com to {arn}");
    let added = region.repairs("oidc-assoc", one, &[&add], &["iam:AddClientIDToOpenIDConnectProvider"]);
    added.tells(&used);
    assert_eq!(added.document, one);
    let have = region.aws("iam", "get_open_id_connect_provider", provider.clone());
    assert_eq!((&have["ClientIDList"], &have["Tags"]), (&json!(["theirs", "sts.amazonaws.com"]), &json!([])));
    region.deletes("oidc-assoc", one, &[&format!("provider {arn}: not made by crossmesh")], &[]);

    let tags = json!({"Tags": [{"Key": "managed-by", "Value": "terraform"}]});
    region.aws("iam", "tag_open_id_connect_provider", with(&provider, tags));
    region
        .steady("oidc-assoc", one)
        .tells(&format!("provider {arn} is used, managed by terraform: --adopt takes it over"));
    region.deletes("oidc-assoc", one, &[&format!("provider {arn}: managed by terraform")], &[]);

    remove();
    let writes = ["iam:TagOpenIDConnectProvider", "iam:AddClientIDToOpenIDConnectProvider"];
    region.restores("oidc-assoc --adopt", one, &[&format!("take over provider {arn}"), &add], &writes);
    // Pods of others would lose their credentials.
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity", "Principal": {"Federated": arn}}]});
    let role = json!({"RoleName": "theirs"});
    region.aws("iam", "create_role", with(&role, json!({"AssumeRolePolicyDocument": trust.to_string()})));
    region.deletes("oidc-assoc", one, &[&format!("provider {arn}: roles trust it: theirs")], &[]);
    region.aws("iam", "delete_role", role);
    let gone = region.deletes("oidc-assoc", one, &[], &["iam:DeleteOpenIDConnectProvider"]);
    assert_eq!(gone.json()["oidc"], Value::Null);
    region.deletes("oidc-assoc -n --cluster c1", "{\n  \"v\": 1\n}\n", &[], &[]);
    let create = format!("create provider {url} for sts.amazonaws.com");
    region.restores("oidc-assoc", one, &[&create], &["iam:CreateOpenIDConnectProvider"]);
}

/// A cluster with a private endpoint, an issuer with a port and a path, and more audiences.
pub fn any_issuer(region: &Region, one: &str, apart: &str) {
    let made = region.done("oidc-assoc", apart);
    assert_eq!(made.json()["oidc"]["url"], made.json()["cluster"]["issuer"]);
    region.steady("oidc-assoc", &made.document);
    region.deletes("oidc-assoc", &made.document, &[], &["iam:DeleteOpenIDConnectProvider"]);

    for issuer in ["https://issuer.example:8443/clusters/c1", "https://issuer.example/"] {
        let mut document: Value = serde_json::from_str(one).unwrap();
        document["cluster"]["issuer"] = issuer.into();
        document["oidc"] = json!({"audiences": ["sts.amazonaws.com", "vault"]});
        let made = region.done("oidc-assoc", &document.to_string());
        let bare = issuer.trim_start_matches("https://");
        let provider = format!("arn:aws:iam::123456789012:oidc-provider/{bare}");
        assert_eq!(
            made.json()["oidc"],
            json!({"arn": provider, "audiences": ["sts.amazonaws.com", "vault"], "url": issuer})
        );
        region.steady("oidc-assoc", &made.document);

        let role = region.done("irsa-role --role port --service-account a/b", &made.document);
        let have = region.aws("iam", "get_role", json!({"RoleName": "port"}));
        let statement = &have["Role"]["AssumeRolePolicyDocument"]["Statement"][0];
        let claims =
            json!({format!("{bare}:aud"): "sts.amazonaws.com", format!("{bare}:sub"): "system:serviceaccount:a:b"});
        assert_eq!(statement["Condition"], json!({"StringEquals": claims}));
        assert_eq!(statement["Principal"], json!({"Federated": provider}));
        region.steady("irsa-role", &role.document);
        region.deletes("irsa-role", &role.document, &[], &["iam:DeleteRole"]);
        region.deletes("oidc-assoc", &made.document, &[], &["iam:DeleteOpenIDConnectProvider"]);
    }
}
