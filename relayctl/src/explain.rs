//! `relayctl explain`: a dry run of the scheduler.

use clap::Args;
use shared::admin::{Explain, Explanation};
use shared::domain::Protocol;

use crate::args;
use crate::ctl::Ctl;
use crate::failure::Failure;
use crate::format;
use crate::output::{Cell, Grid, Look, Tone};

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The key that would ask (id or name)
    #[arg(long)]
    key: String,
    /// The model that it would ask for
    #[arg(long)]
    model: String,
    /// The protocol that the client would speak [default: any that fits]
    #[arg(long, value_parser = args::protocol())]
    protocol: Option<Protocol>,
}

/// Shows every account with its reason.
pub(crate) async fn run(ctl: &Ctl, args: ExplainArgs) -> Result<(), Failure> {
    let call = Explain { key: args.key, model: args.model, protocol: args.protocol };
    ctl.out.print(&ctl.client.call(&call).await?, text)
}

fn text(explanation: &Explanation, look: &Look) -> String {
    let chosen = explanation.accounts.iter().find(|account| account.chosen);
    let verdict = match (&explanation.refused, chosen) {
        (Some(reason), _) => format!("refused: {reason}"),
        (None, Some(account)) => format!("served by {}", account.name),
        (None, None) => "no account can serve it".to_owned(),
    };
    let verdict = format!("{verdict} (asked in {})", explanation.protocol.name());
    let verdict = format::plain(&verdict);
    if explanation.accounts.is_empty() {
        return verdict;
    }
    let mut grid = Grid::new(look, &["account", "~reason"]);
    for account in &explanation.accounts {
        let tone = if account.chosen { Tone::Good } else { Tone::Neutral };
        grid.row([Cell::toned(account.name.as_str(), tone), account.reason.as_str().into()]);
    }
    format!("{verdict}\n\n{}", grid.text())
}

#[cfg(test)]
mod tests {
    use shared::admin::ExplainedAccount;
    use shared::domain::Protocol;

    use super::*;
    use crate::output::tests::PIPE;

    #[test]
    fn the_verdict_comes_first() {
        let account = |chosen| ExplainedAccount {
            id: "acc_1".into(),
            name: "main".to_owned(),
            chosen,
            reason: "best priority".to_owned(),
        };
        for (refused, accounts, verdict) in [
            (None, vec![account(true)], "served by main (asked in messages)"),
            (None, vec![account(false)], "no account can serve it (asked in messages)"),
            (
                Some("the key is disabled".to_owned()),
                vec![],
                "refused: the key is disabled (asked in messages)",
            ),
        ] {
            let protocol = Protocol::Messages;
            let explanation = Explanation { protocol, refused, chosen: None, accounts };
            assert_eq!(text(&explanation, &PIPE).lines().next(), Some(verdict));
        }
    }
}
