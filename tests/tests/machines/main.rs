//! The tools on the machines that people have: other Linux distributions, behind proxies, with profiles and kubeconfigs of
//! every kind.

mod any_linux;
mod credentials;
mod proxies;
