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
    /// The protocol that the client would speak [default: the first of the account that would serve it]
    #[arg(long, value_parser = args::protocol())]
    protocol: Option<Protocol>,
}

/// Shows every account with its reason.
pub(crate) async fn run(ctl: &Ctl, args: ExplainArgs) -> Result<(), Failure> {
    let call = Explain { key: args.key, model: args.model, protocol: args.protocol };
    ctl.out.print(&ctl.client.call(&call).await?, text)
}

fn text(explanation: &Explanation, look: &Look) -> String {
    let verdict = look.sentence(&verdict(explanation));
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

fn verdict(explanation: &Explanation) -> String {
    if let Some(reason) = &explanation.refused {
        return format!("refused: {reason}");
    }
    let asked = explanation.protocol;
    let others = explanation.served_in.iter().filter(|protocol| **protocol != asked);
    let others: Vec<_> = others.map(|protocol| protocol.name()).collect();
    let elsewhere = |words: &str| match others.as_slice() {
        [] => String::new(),
        others => format!("; {words} {}", format::list(others, "")),
    };
    let assumed = if explanation.assumed { ", which is assumed" } else { "" };
    match explanation.accounts.iter().find(|account| account.chosen) {
        Some(account) => {
            let name = &account.name;
            format!(
                "served by {name}, asked in {}{assumed}{}",
                asked.name(),
                elsewhere("it is also served in")
            )
        }
        None if explanation.served_in.is_empty() && explanation.assumed => {
            "no account can serve it".to_owned()
        }
        None => format!("no account can serve it, asked in {}{}", asked.name(), elsewhere("it is served in")),
    }
}

#[cfg(test)]
mod tests {
    use shared::admin::ExplainedAccount;

    use super::*;
    use crate::output::tests::PIPE;

    #[test]
    fn the_verdict_comes_first() {
        use Protocol::{ChatCompletions, Messages, Responses};
        for (refused, chosen, assumed, served_in, verdict) in [
            (None, true, false, vec![Messages], "served by main, asked in messages"),
            (
                None,
                true,
                true,
                vec![Messages, ChatCompletions, Responses],
                "served by main, asked in messages, which is assumed; it is also served in chat_completions, responses",
            ),
            (None, false, false, vec![], "no account can serve it, asked in messages"),
            (
                None,
                false,
                false,
                vec![Responses],
                "no account can serve it, asked in messages; it is served in responses",
            ),
            (None, false, true, vec![], "no account can serve it"),
            (Some("the key is disabled"), false, true, vec![], "refused: the key is disabled"),
        ] {
            let account = ExplainedAccount {
                id: "acc_1".into(),
                name: "main".to_owned(),
                chosen,
                reason: "best priority".to_owned(),
            };
            let refused = refused.map(str::to_owned);
            let explanation = Explanation {
                protocol: Messages,
                assumed,
                served_in,
                refused,
                chosen: None,
                accounts: vec![account],
            };
            assert_eq!(text(&explanation, &PIPE).lines().next(), Some(verdict));
        }
    }
}
