use super::super::testing::{check, credentials as all};
use super::*;

#[test]
fn passwords_and_secrets() {
    check(
        all,
        &[
            "password=«hunter2»",
            "Password: «Hunter2!» ok",
            "\"password\":\"«pass word 1»\"",
            "{\\\"password\\\":\\\"«abc1»\\\"}",
            "PGPASSWORD='«x y z»'",
            "mot de passe = '«secr3t»'",
            "contraseña: «Abc12»",
            "пароль=«Abc12»",
            "Server=db;Password=«a(b1c»;Encrypt=true",
            "password=«yLWR(3Ec#OY»",
            "password: «gxeiICKT(2A_L» ",
            "Passwort = '«_lJo(Pkg1Yz5i»'",
            "client_secret=«abcdefg1»&x=1",
            "GET /x?code=«ce9e5805954»&b=2",
            "AccountKey=«abcdEFGH0123456789+/abcdEFGH==»;x",
            "password=«Tr0ub4dor&3xyz»",
            "password=«a&b&c&»",
            "password=«hunter2,x,y&z» ok",
            "password=«hunter2»,user=bob",
            "{password:«Hunter2»,user:bob}",
            "password=«hunter2», retrying",
            "password=«hunter2»,",
            "password=«hunter2»,\"user\"",
            "password: «Ab&cdefghijklmnop»",
            "parola d'ordine=«&lI0BebpKPj9H»",
            "\"Passwort\":\"«%(i#y3OsG9iZ»\"",
            "Passwort = '«${abc1x9»'",
            "password=«hunter2»&next=1",
            "password=«hunt&r2»&next%5B%5D=1",
            "password=«hunter2»&amp;x",
            "losenord=«25Bhrq)p&FsUC»;x=1",
            "password: «Ab1&c:d&e»",
            "ssid=\"«Miller WiFi»\"",
            "wifiSSID: «Miller-5G»",
        ],
    );
    check(
        all,
        &[
            "password must not be empty",
            "password=",
            "password: required",
            "password=None",
            "password=%s",
            "password=&next=1",
            "password=%(password)s and",
            "password: '$(cat file)'",
            "password=\"{{ vault.password }}\"",
            "password=getpass(x)",
            "password=getenv(\"PW\")[0]",
            "password == other",
            "password_hash=abc",
            "token: expected",
            "token=lexer.next",
            "secret: null",
            "code=ce9e5805954",
            "?code=404",
            "password='xxxxxxxx'",
            "passwords",
            "the password: a word",
            "NSsid:\t24993",
            "password=${PW}",
            "token::Kind1234",
        ],
    );
}

#[test]
fn what_is_remembered_of_a_line_changes_nothing() {
    const PIECES: &[&str] = &[
        "token",
        "password",
        "ssid",
        "?key",
        "=",
        ":",
        "\"",
        " ",
        "&",
        "Ab1",
        "abcdefghijklmno",
        "0123456789",
        "\\",
    ];
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = std::env::var("CENOTAPH_SEED").ok().map_or_else(clock, |seed| seed.parse().unwrap());
    println!("CENOTAPH_SEED={seed}");
    let mut state: u64 = seed;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let words = [
        ("token", Meaning::Secret),
        ("password", Meaning::Password),
        ("ssid", Meaning::Network),
        ("key", Meaning::Parameter),
    ];
    let mut found = 0;
    for _ in 0..1000 {
        let line: String = (0..60).map(|_| PIECES[random(PIECES.len())]).collect();
        let (mut remembered, mut hits, mut expected) = (Announced::new(line.as_bytes()), vec![], vec![]);
        for start in 0..line.len() {
            for (text, meaning) in words.iter().filter(|(text, _)| line[start..].starts_with(text)) {
                let word = start..start + text.len();
                remembered.by(line.as_bytes(), word.clone(), *meaning, &mut hits);
                Announced::new(line.as_bytes()).by(line.as_bytes(), word, *meaning, &mut expected);
            }
        }
        assert_eq!(hits, expected, "{line}");
        found += hits.len();
    }
    assert!(found > 400, "{found}");
}

#[test]
fn dates_numbers_and_places() {
    check(
        all,
        &[
            "date of birth: «1990-12-31»",
            "Geburtsdatum=«31.12.1990»",
            "né le «31/12/1990»",
            "born «December 31, 1990»",
            "\"dob\":\"«12/31/1990»\"",
            "doğum tarihi: «31.12.1990»",
            "phone: «(415) 555-2671»",
            "Tel. «030 1234567»",
            "\"telefon\":\"«0171 2345678»\"",
            "phone_number=«4155552671»;",
            "gps «48.137154, 11.576124»",
            "geo:«-24.2799,43.0336»",
            "\"latitude\": «48.137154»,",
            "mnemonic: «abandon ability able about above absent absorb abstract absurd abuse access accident»",
            "mnemonic: «abandon ability able about above absent accident absorb abuse access absurd abstracta»",
            "wallet «0x52908400098527886E0F7030069857D2E4169EE7»",
            "Cookie: «a=bcd; e=fgh»",
            "Set-Cookie: «sid=0123456789»; Path=/",
        ],
    );
    check(
        all,
        &[
            "born to run 12",
            "dob 1.2.3",
            "birthday party",
            "phone model 100",
            "mobile=0",
            "cell 42 of 4096",
            "phone: none",
            "position 1.5, 2.5",
            "position 0.25, 0.5, 0.75",
            "address 0x7ffd12345678",
            "cookie=abc",
            "location: here",
        ],
    );
}
