//! `weir earnings`.

use std::fmt::Write as _;

use super::out::Out;
use weir_control::{
    api::view::{Changed, ConfirmRequest, Earnings, WithdrawRequest, WithdrawalView},
    client::Client,
};

pub(super) fn show(client: &Client, json: bool, out: &mut Out) -> anyhow::Result<()> {
    let earnings: Earnings = client.get("/v1/earnings")?;
    if json {
        return out.json(&earnings);
    }
    let mut text = String::new();
    writeln!(text, "promises  {} wei", earnings.promised_wei)?;
    writeln!(text, "vouchers  {} used", earnings.vouchers_used)?;
    for mint in &earnings.mints {
        let unit = &mint.unit;
        let left = mint.redeemed.saturating_sub(mint.withdrawn);
        writeln!(text, "ecash     {}", mint.mint)?;
        writeln!(text, "            received    {} {unit}", mint.received)?;
        writeln!(text, "            unredeemed  {} {unit}", mint.unredeemed)?;
        writeln!(text, "            redeemed    {} {unit}, fees {}", mint.redeemed, mint.fees)?;
        writeln!(text, "            withdrawn   {} {unit}, {left} to withdraw", mint.withdrawn)?;
        if mint.lost > 0 {
            writeln!(text, "            lost        {} {unit}: spent elsewhere", mint.lost)?;
        }
    }
    for open in &earnings.unconfirmed {
        writeln!(
            text,
            "withdrawal {} of {} is not confirmed: weir earnings confirm {}",
            open.withdrawal, open.amount, open.withdrawal
        )?;
    }
    out.text(&text)?;
    Ok(())
}

pub(super) fn withdraw(
    client: &Client,
    mint: Option<String>,
    json: bool,
    out: &mut Out,
    err: &mut Out,
) -> anyhow::Result<()> {
    let made: WithdrawalView =
        client.post("/v1/earnings/withdraw", &WithdrawRequest { mint, again: None })?;
    if json {
        return out.json(&made);
    }
    out.text(&format!("{}\n", made.token.as_deref().unwrap_or_default()))?;
    err.text(&format!(
        "Withdrawal {}, worth {}. Receive it in a wallet, then run: weir earnings confirm {}\n",
        made.withdrawal, made.amount, made.withdrawal
    ))?;
    Ok(())
}

pub(super) fn again(
    client: &Client,
    withdrawal: u64,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let request = WithdrawRequest { mint: None, again: Some(withdrawal) };
    let made: WithdrawalView = client.post("/v1/earnings/withdraw", &request)?;
    if json {
        return out.json(&made);
    }
    out.text(&format!("{}\n", made.token.as_deref().unwrap_or_default()))?;
    Ok(())
}

pub(super) fn confirm(
    client: &Client,
    withdrawal: u64,
    json: bool,
    out: &mut Out,
) -> anyhow::Result<()> {
    let done: Changed = client.post("/v1/earnings/confirm", &ConfirmRequest { withdrawal })?;
    if json {
        return out.json(&done);
    }
    out.text(match done.changed {
        true => "confirmed; the node has deleted the token\n",
        false => "there is no such withdrawal, or it was confirmed before\n",
    })?;
    Ok(())
}
