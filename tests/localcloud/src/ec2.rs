//! Clients of EC2: one as the operator, one as AWS's own network.

use aws_sdk_ec2::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_sdk_ec2::{Client, Config};

use crate::account::Keys;
use crate::cloud::REGION;
use crate::gateway::AWS_PORT;

fn config(keys: Credentials) -> Builder {
    Config::builder().behavior_version(BehaviorVersion::latest()).region(Region::new(REGION)).credentials_provider(keys)
}

/// By name, over TLS, through the access control, as everybody goes. `SSL_CERT_FILE` of this process says whom to trust.
pub fn operator(keys: &Keys) -> Client {
    let keys =
        Credentials::new(&keys.access_key_id, &keys.secret_access_key, keys.session_token.clone(), None, "operator");
    Client::from_conf(config(keys).build())
}

/// Past the gateway: the router belongs to AWS, needs no permission, and is not in the log of calls.
pub fn router() -> Client {
    let keys = Credentials::new("router", "router", None, None, "router");
    Client::from_conf(config(keys).endpoint_url(format!("http://127.0.0.1:{AWS_PORT}")).build())
}
