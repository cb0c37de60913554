//! EC2 as AWS's own network asks it: past the gateway, without a signature, and not in the log of calls.

use anyhow::{Context, Result};
use roxmltree::Node;

use crate::cloud::REGION;
use crate::gateway::AWS_PORT;

/// The XML that answers an action of the EC2 query API without parameters.
pub async fn ask(action: &str) -> Result<String> {
    let request = reqwest::Client::new()
        .post(format!("http://127.0.0.1:{AWS_PORT}/"))
        .header("host", format!("ec2.{REGION}.amazonaws.com"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("Action={action}&Version=2016-11-15"));
    let answer = request.send().await.and_then(reqwest::Response::error_for_status);
    answer.with_context(|| format!("ec2:{action}"))?.text().await.with_context(|| format!("ec2:{action}"))
}

/// The child of that name.
pub fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(("http://ec2.amazonaws.com/doc/2016-11-15", name)))
}

/// The text of the child of that name.
pub fn text<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    child(node, name)?.text()
}

/// The entries of the list of that name.
pub fn items<'a>(node: Node<'a, 'a>, name: &str) -> impl Iterator<Item = Node<'a, 'a>> {
    child(node, name).into_iter().flat_map(|list| list.children()).filter(Node::is_element)
}
