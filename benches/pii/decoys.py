"""What looks like a value and is none: near misses of every rule, and the words of context rules in ordinary use."""


def digits(r, length):
    return "".join(r.choice("0123456789") for _ in range(length))


def luhn_sum(text):
    return sum(int(d) if i % 2 == 0 else (int(d) * 2 - 9 if int(d) > 4 else int(d) * 2) for i, d in enumerate(reversed(text))) % 10


def card(r):
    text = r.choice("45") + digits(r, 15)
    return text if luhn_sum(text) else text[:-1] + str((int(text[-1]) + 1) % 10)


def hexa(r, length):
    return "".join(r.choice("0123456789abcdef") for _ in range(length))


def version(r):
    return ".".join(str(r.randrange(30)) for _ in range(r.choice([2, 3, 5])))


KINDS = {
    "payment-card": lambda r: r.choice(["order {}", "t={}", "{}"]).format(card(r)),
    "payment-card-decimal": lambda r: f"0.{digits(r, 16)}",
    "iban": lambda r: "DE" + digits(r, 20) if r.random() < 0.5 else "GB" + hexa(r, 20).upper(),
    "us-ssn": lambda r: r.choice([f"{digits(r, 3)}-{digits(r, 3)}-{digits(r, 4)}", f"000-{digits(r, 2)}-{digits(r, 4)}", f"{digits(r, 2)}-{digits(r, 3)}-{digits(r, 4)}"]),
    "version": lambda r: r.choice(["v{}", "version {}", "libfoo.so.{}", "{}-rc1"]).format(version(r)),
    "file-at": lambda r: r.choice(["icon@{}x.png", "getty@tty{}.service", "lodash@4.17.{}", "pkg@v1.{}.0"]).format(r.randrange(2, 30)),
    "time": lambda r: f"{r.randrange(24):02}:{r.randrange(60):02}:{r.randrange(60):02}.{digits(r, 6)}",
    "uuid": lambda r: f"{hexa(r, 8)}-{hexa(r, 4)}-4{hexa(r, 3)}-a{hexa(r, 3)}-{hexa(r, 12)}",
    "digest": lambda r: r.choice(["sha1 ", "build id ", "commit ", ""]) + hexa(r, r.choice([32, 40, 64])),
    "epoch": lambda r: str(1_600_000_000_000_000 + r.randrange(10**14)),
    "namespace": lambda r: r.choice(["std::fd::add", "core::dec::x", "a::b::c0", "v8::internal::Heap", "fe::ed::r1"]),
    "prefix": lambda r: r.choice(["ghp_short", "AKIA12345", "sk_live_x", "xoxb-abc", "glpat-", "npm_config_cache", "npm_lifecycle_event", "SG.png", "AIza", "pypi-server", "eyJ", "sk-learn", "sk-scikit", "AC-3", "SKINNED_MESH"]),
    "password-word": lambda r: r.choice(["password must not be empty", "password=", "forgot password?", "password: required", "enter the password again", "wrong password, try again", "Passwort vergessen", "mot de passe invalide", "passwd file", "set_password(self, value)", "password_hash_function", "token: expected identifier", "token = lexer.next()", "secret santa event", "key: value", "tokenize", "password: %s", "password=%d", "secret: null", "token=true", "api_key=None"]),
    "birth-word": lambda r: r.choice(["born to run", "birthday party event", "date of build: {}".format("2024-01-02"), "released 2024-05-06", "dob_field missing", "Geburtsdatum fehlt"]),
    "phone-word": lambda r: r.choice(["phone model X100", "the phone rang", "telephone pole asset 12", "tel aviv", "mobile build 20240102", "cell 42 of 4096", "Telefon nicht erreichbar", "phone: none", "+1 health", "+100 gold", "a+b+c", "x+12345", "mobile=0"]),
    "floats": lambda r: ", ".join(f"{r.uniform(-1, 1):.6f}" for _ in range(4)),
    "hex-dump": lambda r: " ".join(hexa(r, 2) for _ in range(16)),
    "mac-like": lambda r: ":".join(hexa(r, 2) for _ in range(r.choice([4, 5, 8]))),
    "base64-art": lambda r: "iVBORw0KGgoAAAANSUhEUgAA" + "".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") for _ in range(80)),
    "symbol": lambda r: f"_ZN{r.randrange(4, 12)}cenotaph5scrub17h{hexa(r, 16)}E",
    "url": lambda r: r.choice(["https://example.org/a?page=2&sort=up", "https://example.org/@user", "http://localhost:8080/x?code=404", "GET /x?token= HTTP/1.1"]),
    "path": lambda r: r.choice(["/usr/lib/x86_64-linux-gnu/libc.so.6", "C:\\Windows\\System32\\ntdll.dll", "/homes/x", "/Users/Shared/x", "C:\\Users\\Public\\x", "/opt/game/home.png"]),
}
