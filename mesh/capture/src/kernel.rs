//! The netlink calls: the table goes in whole or not at all.

use anyhow::{Error, Result};
use nlink::netlink::nftables::{Family, Transaction};
use nlink::netlink::{Connection, Nftables};

use crate::rules::{Hooked, TABLE};

/// `EPERM` of errno-base.h.
const EPERM: i32 = 1;
/// `ENOENT`: an expression or chain type the kernel does not have.
const ENOENT: i32 = 2;
/// `EOPNOTSUPP`: a family or hook the kernel does not have.
const EOPNOTSUPP: i32 = 95;
/// `EPROTONOSUPPORT`: no netfilter netlink at all.
const EPROTONOSUPPORT: i32 = 93;

/// Replaces the table `appmesh` of this network namespace with these chains, in one transaction.
pub async fn replace(chains: &[Hooked]) -> Result<()> {
    try_replace(chains).await.map_err(|error| {
        let reason = reason(error.errno());
        Error::new(error).context(reason)
    })
}

async fn try_replace(chains: &[Hooked]) -> nlink::Result<()> {
    let connection = Connection::<Nftables>::new()?;
    let tables = connection.list_tables_in(Family::Inet).await?;
    let mut transaction = connection.transaction();
    if tables.iter().any(|table| table.name == TABLE) {
        transaction = transaction.del_table(TABLE, Family::Inet);
    }
    fill(transaction, chains)?.commit(&connection).await
}

fn fill(transaction: Transaction, chains: &[Hooked]) -> nlink::Result<Transaction> {
    let mut transaction = transaction.add_table(TABLE, Family::Inet);
    for hooked in chains {
        transaction = transaction.add_chain(hooked.chain()?);
        for rule in &hooked.rules {
            transaction = transaction.add_rule(rule.clone());
        }
    }
    Ok(transaction)
}

/// What an operator can do about the kernel's answer.
fn reason(errno: Option<i32>) -> &'static str {
    match errno {
        Some(EPERM) => "may not change this pod's nftables rules: the container needs the capability NET_ADMIN",
        Some(ENOENT | EOPNOTSUPP | EPROTONOSUPPORT) => {
            "this kernel can't redirect with nftables: it needs nf_tables with NAT in the inet \
             family (Linux 5.2 with CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT and CONFIG_NFT_REDIR)"
        }
        _ => "the kernel refused the nftables table appmesh",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_missing() {
        for (errno, expected) in [
            (Some(EPERM), "capability NET_ADMIN"),
            (Some(ENOENT), "CONFIG_NFT_REDIR"),
            (Some(EOPNOTSUPP), "CONFIG_NF_TABLES_INET"),
            (Some(EPROTONOSUPPORT), "Linux 5.2"),
            (Some(22), "refused"),
            (None, "refused"),
        ] {
            assert!(reason(errno).contains(expected), "{errno:?}");
        }
    }
}
