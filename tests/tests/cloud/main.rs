//! What is tried in a local cloud: each of these tests starts one of its own, which it has for itself, and most of its time
//! it waits. So they are one program, whose tests run side by side. They need Linux and root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod aws_tools;
mod bad_worlds;
mod bench;
mod contract_live;
mod data_plane;
mod examples;
mod faults_aws;
mod faults_killed;
mod faults_kubernetes;
mod faults_left_out;
mod faults_two;
mod flow;
mod image_tools;
mod kube_tools;
mod least_privilege;
mod migration;
mod nothing_lost;
