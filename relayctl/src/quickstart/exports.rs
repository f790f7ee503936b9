//! The lines that point clients at the relay. The addresses are those that the clients themselves append to.

use std::net::SocketAddr;

use serde::Serialize;

/// What one client needs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Export {
    /// The client's name, and where the lines belong if not in a shell.
    pub(super) client: &'static str,
    /// Lines to copy.
    pub(super) lines: Vec<String>,
}

/// The lines for every client, with a key or what stands for it.
pub(super) fn all(relay: SocketAddr, key: &str) -> Vec<Export> {
    let set = |name: &str, value: &str| format!("export {name}={value}");
    let at = |path: &str| format!("http://{relay}{path}");
    vec![
        Export {
            client: "Anthropic SDKs",
            lines: vec![set("ANTHROPIC_BASE_URL", &at("")), set("ANTHROPIC_API_KEY", key)],
        },
        Export {
            client: "OpenAI SDKs",
            lines: vec![set("OPENAI_BASE_URL", &at("/openai/v1")), set("OPENAI_API_KEY", key)],
        },
        Export {
            client: "Gemini SDKs and Gemini CLI",
            lines: vec![set("GOOGLE_GEMINI_BASE_URL", &at("/gemini")), set("GEMINI_API_KEY", key)],
        },
        Export {
            client: "Claude Code",
            lines: vec![set("ANTHROPIC_BASE_URL", &at("/api")), set("ANTHROPIC_AUTH_TOKEN", key)],
        },
        Export { client: "Codex", lines: vec![set("RELAYD_API_KEY", key)] },
        Export {
            client: "Codex, in ~/.codex/config.toml",
            lines: vec![
                "model_provider = \"relayd\"".to_owned(),
                String::new(),
                "[model_providers.relayd]".to_owned(),
                "name = \"relayd\"".to_owned(),
                format!("base_url = \"{}\"", at("/openai")),
                "wire_api = \"responses\"".to_owned(),
                "env_key = \"RELAYD_API_KEY\"".to_owned(),
            ],
        },
    ]
}

/// The lines as a text to copy from.
pub(super) fn text(exports: &[Export]) -> String {
    let block = |export: &Export| format!("# {}\n{}\n", export.client, export.lines.join("\n"));
    exports.iter().map(block).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_told_its_address_and_key() {
        let text = text(&all("127.0.0.1:3001".parse().unwrap(), "cr_1"));
        for line in [
            "export ANTHROPIC_BASE_URL=http://127.0.0.1:3001\nexport ANTHROPIC_API_KEY=cr_1\n",
            "export OPENAI_BASE_URL=http://127.0.0.1:3001/openai/v1\nexport OPENAI_API_KEY=cr_1\n",
            "export GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:3001/gemini\nexport GEMINI_API_KEY=cr_1\n",
            "export ANTHROPIC_BASE_URL=http://127.0.0.1:3001/api\nexport ANTHROPIC_AUTH_TOKEN=cr_1\n",
            "base_url = \"http://127.0.0.1:3001/openai\"\nwire_api = \"responses\"\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
