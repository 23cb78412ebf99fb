"""Secrets that software is given, by the shapes that their issuers publish. None of them opens anything.

Each function yields (text with {} where the value stands, value, ""). A value is given as a list of pieces: those who watch
repositories for lost tokens would take whole ones for real.
"""

import base64
import hashlib
import json
import zlib

WORD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
PLAIN = ["token {} ok", "{}", "key={};", '"key":"{}"', "export K={}\n"]


def draw(r, alphabet, length):
    return "".join(r.choice(alphabet) for _ in range(length))


def hexa(r, length):
    return draw(r, "0123456789abcdef", length)


def b64(r, length, url=False):
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    return encode(r.randbytes(length)).decode()


def base62(number, width):
    digits = ""
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    while number:
        number, rest = divmod(number, 62)
        digits = alphabet[rest] + digits
    return digits.rjust(width, "0")


def github(r):
    if r.random() < 0.2:
        return ["github_", "pat_" + draw(r, WORD, 22) + "_" + draw(r, WORD, 59)]
    body = draw(r, WORD, 30)
    return [r.choice(["gh"]), r.choice(["p_", "o_", "u_", "s_", "r_"]) + body + base62(zlib.crc32(body.encode()), 6)]


def npm(r):
    body = draw(r, WORD, 30)
    return ["np", "m_" + body + base62(zlib.crc32(body.encode()), 6)]


def slack(r):
    kind = r.choice(["xb", "xp", "xa", "xr", "xs"])
    digits = lambda n: draw(r, "0123456789", n)
    return ["xo", f"{kind}-{digits(12)}-{digits(13)}-{draw(r, WORD, 24)}"]


def jwt(r):
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")
    header = part({"alg": r.choice(["HS256", "RS256", "ES256"]), "typ": "JWT"})
    body = part({"sub": draw(r, "0123456789", 10), "iat": r.randrange(10**9, 2 * 10**9)})
    return ["ey", f"{header}.{body}.{b64(r, 32, True).rstrip('=')}"[2:]]


def pem(r):
    label = r.choice(["RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PGP PRIVATE KEY BLOCK"])
    body = b64(r, r.randrange(120, 400))
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return ["-----", f"BEGIN {label}-----\n{lines}\n-----END {label}-----"]


def base58check(r):
    payload = b"\0" + r.randbytes(20)
    payload += hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(payload, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = alphabet[rest] + text
    return "1" * (len(payload) - len(payload.lstrip(b"\0"))) + text


def bech32(r):
    """BIP 173, a version 0 program of 20 bytes."""
    charset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    bits, count, data = 0, 0, [0]
    for byte in r.randbytes(20):
        bits, count = bits << 8 | byte, count + 8
        while count >= 5:
            count -= 5
            data.append(bits >> count & 31)
    def polymod(values):
        generator, check = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3), 1
        for value in values:
            top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
            for i in range(5):
                check ^= generator[i] if top >> i & 1 else 0
        return check
    human = [3, 3, 0, 2, 3]
    check = polymod(human + data + [0] * 6) ^ 1
    return "bc1" + "".join(charset[d] for d in data + [check >> 5 * (5 - i) & 31 for i in range(6)])


def bitcoin(r):
    return [base58check(r) if r.random() < 0.5 else bech32(r)]


def discord(r):
    user = base64.b64encode(draw(r, "123456789", 18).encode()).decode().rstrip("=")
    return [user[:2], f"{user[2:]}.{draw(r, WORD, 6)}.{draw(r, WORD + '-_', 38)}"]


def telegram(r):
    return [str(r.randrange(10**8, 10**10)) + ":A", "A" + draw(r, WORD + "-_", 33)]


def sid(r):
    return ["S-1-5-21-" + "-".join(str(r.randrange(10**8, 2**32)) for _ in range(3)) + "-" + str(r.randrange(500, 9999))]


def openai(r):
    if r.random() < 0.5:
        return ["s", "k-" + draw(r, WORD, 20) + "T3BlbkFJ" + draw(r, WORD, 20)]
    return ["s", "k-proj-" + draw(r, WORD, 74) + "T3BlbkFJ" + draw(r, WORD, 74)]


def aws_id(r):
    return ["A", r.choice(["KIA", "SIA"]) + draw(r, BASE32, 16)]


TOKENS = {
    "github-token": github, "npm-token": npm, "slack-token": slack, "jwt": jwt, "bitcoin-address": bitcoin,
    "discord-token": discord, "telegram-token": telegram, "windows-sid": sid, "openai-key": openai, "aws-key-id": aws_id,
    "anthropic-key": lambda r: ["s", "k-ant-api03-" + draw(r, WORD + "-_", 93) + "AA"],
    "gcp-key": lambda r: ["AI", "za" + draw(r, WORD + "-_", 35)],
    "gitlab-token": lambda r: ["gl", "pat-" + draw(r, WORD + "-_", 20)],
    "stripe-key": lambda r: [r.choice(["sk", "rk"]), r.choice(["_live_", "_test_"]) + draw(r, WORD, r.randrange(24, 99))],
    "pypi-token": lambda r: ["pypi-", "AgEIcHlwaS5vcmc" + draw(r, WORD + "-_", 150)],
    "twilio-key": lambda r: [r.choice(["SK", "AC"]), hexa(r, 32)],
    "sendgrid-key": lambda r: ["S", "G." + draw(r, WORD + "-_", 22) + "." + draw(r, WORD + "-_", 43)],
    "azure-key": lambda r: [b64(r, 64)],
    "pem-private-key": pem,
}


def plain(make, forms=PLAIN):
    return lambda r, fakes: (r.choice(forms), make(r), "")


def http_auth(r, fakes):
    forms = [
        ("Authorization: Bearer {}", b64(r, 24, True).rstrip("=")),
        ("Authorization: Basic {}", base64.b64encode(f"{fakes['en_US'].user_name()}:{draw(r, WORD, 10)}".encode()).decode()),
        ("curl -H 'Bearer {}' x", b64(r, 24, True).rstrip("=")),
        ("authorization: token {}", hexa(r, 40)),
        ("Authorization: Digest {}", f'username="{fakes["en_US"].user_name()}", realm="x", response="{hexa(r, 32)}"'),
    ]
    form, value = r.choice(forms)
    return form, [value], ""


def cookie(r, fakes):
    name = r.choice(["session", "sid", "connect.sid", "PHPSESSID", "JSESSIONID", "csrftoken", "auth"])
    return r.choice(["Cookie: {}", "Set-Cookie: {}; Path=/; HttpOnly"]), [f"{name}={hexa(r, 32)}"], ""


def url_secret(r, fakes):
    name = r.choice(["access_token", "api_key", "token", "sig", "code", "client_secret", "password", "X-Amz-Signature"])
    return "GET https://api.skyforge.io/v1/x?a=1&" + name + "={}" + r.choice(["", "&b=2", " HTTP/1.1"]), [hexa(r, 40)], ""


def connection(r, fakes):
    form = r.choice([
        "Server=db;Database=x;User Id=app;Password={};Encrypt=true", "host=db port=5432 user=app password={} dbname=x",
        "AccountName=store;AccountKey={};EndpointSuffix=core.windows.net", "Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey={}",
    ])
    return form, [b64(r, 32) if "Key" in form else draw(r, WORD, 14)], ""


def generic(r, fakes):
    name = r.choice(["api_key", "apikey", "API-KEY", "client_secret", "secret", "auth_token", "access_token", "refresh_token", "private_key", "DB_PASSWORD", "SECRET_KEY", "encryption_key"])
    return r.choice([name + "={}", '"' + name + '": "{}"', name + ": {}", name + " = '{}'"]), [draw(r, WORD, r.randrange(16, 41))], ""


def aws_secret(r, fakes):
    form = r.choice(["aws_secret_access_key = {}", '"SecretAccessKey": "{}"', "AWS_SECRET_ACCESS_KEY={}"])
    return form, [b64(r, 30)], ""


def bip39(r, fakes):
    words = "abandon ability able about above absent absorb abstract absurd abuse access accident account accuse achieve acid acoustic acquire across act action actor actress actual adapt add addict address adjust admit".split()
    return r.choice(["mnemonic: {}", "seed phrase: {}", '"mnemonic":"{}"']), [" ".join(r.choice(words) for _ in range(12))], ""


KINDS = {name: plain(make) for name, make in TOKENS.items()}
KINDS["azure-key"] = plain(TOKENS["azure-key"], ["AccountKey={};x", "AccountKey={}"])
KINDS.update({
    "http-auth": http_auth, "cookie": cookie, "url-secret": url_secret, "connection-string": connection,
    "secret": generic, "aws-secret": aws_secret, "mnemonic": bip39,
    "ethereum-address": lambda r, fakes: (r.choice(["wallet {}", "eth: {}", '"address":"{}"']), ["0x" + draw(r, "0123456789abcdefABCDEF", 40)], ""),
})
