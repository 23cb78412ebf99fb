//! Prefixes of tokens, as data: what their issuers document.
#![forbid(unsafe_code)]

/// A prefix and what may follow it.
pub(super) struct Token {
    pub(super) rule: &'static str,
    /// The prefix, whose case counts.
    pub(super) prefix: &'static str,
    pub(super) body: fn(u8) -> bool,
    /// Least and most characters of the body.
    pub(super) length: (usize, usize),
    /// Whether a letter or digit may stand before the prefix.
    pub(super) inside_words: bool,
}

const fn token(rule: &'static str, prefix: &'static str, body: fn(u8) -> bool, least: usize) -> Token {
    Token { rule, prefix, body, length: (least, usize::MAX), inside_words: true }
}

/// One that begins a word: its prefix is short, or a part of ordinary words.
const fn word(rule: &'static str, prefix: &'static str, body: fn(u8) -> bool, least: usize) -> Token {
    Token { rule, prefix, body, length: (least, usize::MAX), inside_words: false }
}

/// 16 characters follow its prefix; in memory that nobody has cleared, a few of an older text behind them.
const fn aws_id(prefix: &'static str) -> Token {
    Token { rule: AWS_ID, prefix, body: is_upper, length: (16, 24), inside_words: false }
}

pub(super) const AWS_ID: &str = "aws-key-id";

/// Sources: GitHub, "Behind GitHub's new authentication token formats"; Slack, "Token types"; Stripe, "API keys"; AWS, "IAM
/// identifiers"; GitLab, "Token prefixes"; npm, "About access tokens"; PyPI, "API tokens" (macaroons for pypi.org); Google, "API
/// keys" and "OAuth 2.0"; OpenAI and Anthropic, "API keys"; SendGrid, "API keys". Least lengths are below the real
/// ones, for cut-off tokens.
pub(super) static TOKENS: [Token; 43] = [
    aws_id("AKIA"),
    aws_id("ASIA"),
    token("github-token", "ghp_", is_word, 20),
    token("github-token", "gho_", is_word, 20),
    token("github-token", "ghu_", is_word, 20),
    token("github-token", "ghs_", is_word, 20),
    token("github-token", "ghr_", is_word, 20),
    token("github-token", "github_pat_", is_word, 20),
    token("slack-token", "xoxa-", is_dashed, 10),
    token("slack-token", "xoxb-", is_dashed, 10),
    token("slack-token", "xoxe", is_dashed, 14),
    token("slack-token", "xoxp-", is_dashed, 10),
    token("slack-token", "xoxr-", is_dashed, 10),
    token("slack-token", "xoxs-", is_dashed, 10),
    token("slack-token", "xapp-", is_dashed, 10),
    token("slack-webhook", "hooks.slack.com/", is_path, 8),
    token("stripe-key", "sk_live_", is_alphanumeric, 10),
    token("stripe-key", "sk_test_", is_alphanumeric, 10),
    token("stripe-key", "rk_live_", is_alphanumeric, 10),
    token("stripe-key", "rk_test_", is_alphanumeric, 10),
    token("stripe-key", "pk_live_", is_alphanumeric, 10),
    token("stripe-key", "whsec_", is_base64, 16),
    token("gitlab-token", "glpat-", is_dashed_word, 16),
    token("gitlab-token", "gldt-", is_dashed_word, 16),
    token("gitlab-token", "glrt-", is_dashed_word, 16),
    token("gitlab-token", "glcbt-", is_dashed_word, 16),
    token("gitlab-token", "glptt-", is_dashed_word, 16),
    token("gitlab-token", "gloas-", is_dashed_word, 16),
    token("npm-token", "npm_", is_alphanumeric, 30),
    token("pypi-token", "pypi-AgEIcHlwaS5vcmc", is_dashed_word, 8),
    token("pypi-token", "pypi-AgENdGVzdC5weXBpLm9yZ", is_dashed_word, 8),
    token("gcp-key", "AIza", is_dashed_word, 30),
    token("gcp-key", "ya29.", is_dashed_word, 20),
    token("gcp-key", "GOCSPX-", is_dashed_word, 20),
    word("anthropic-key", "sk-ant-", is_dashed_word, 20),
    word("openai-key", "sk-proj-", is_dashed_word, 20),
    word("openai-key", "sk-svcacct-", is_dashed_word, 20),
    word("openai-key", "sk-admin-", is_dashed_word, 20),
    word("openai-key", "sk-", is_alphanumeric, 32),
    word("sendgrid-key", "SG.", is_dashed, 50),
    token("discord-webhook", "discord.com/api/webhooks/", is_path, 20),
    token("discord-webhook", "discordapp.com/api/webhooks/", is_path, 20),
    token("telegram-token", "api.telegram.org/bot", is_telegram, 20),
];

pub(super) fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn is_upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_dashed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

pub(super) fn is_dashed_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'/' || byte == b'+'
}

fn is_telegram(byte: u8) -> bool {
    is_dashed_word(byte) || byte == b':'
}

fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-_.~%".contains(&byte)
}
