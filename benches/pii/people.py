"""Values that belong to a person: each function yields (text with {} where the value stands, value, locale)."""

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from schwifty import IBAN
from schwifty.exceptions import SchwiftyException
from stdnum import luhn

# Faker's locales that values are drawn from; the ten of the context kinds are LANGUAGES.
LOCALES = (
    "ar_AA bg_BG cs_CZ da_DK de_AT de_CH de_DE el_GR en_AU en_CA en_GB en_IN en_US es_ES es_MX et_EE fi_FI fr_CH "
    "fr_FR he_IL hi_IN hr_HR hu_HU id_ID it_IT ja_JP ko_KR lt_LT lv_LV nl_BE nl_NL no_NO pl_PL pt_BR pt_PT ro_RO "
    "ru_RU sk_SK sl_SI sv_SE th_TH tr_TR uk_UA vi_VN zh_CN zh_TW"
).split()

# locale: (words for a password, for a date of birth, for a telephone number)
LANGUAGES = {
    "en_US": (["password", "passwd", "pwd", "passphrase", "Password"], ["date of birth", "dob", "birthdate", "birthday", "born"], ["phone", "tel", "telephone", "mobile", "cell"]),
    "de_DE": (["Passwort", "Kennwort", "passwort"], ["Geburtsdatum", "geboren am", "geb."], ["Telefon", "Tel.", "Handy", "Mobil", "Rufnummer"]),
    "fr_FR": (["mot de passe", "motdepasse", "mdp"], ["date de naissance", "né le", "née le"], ["téléphone", "tél.", "portable", "tel"]),
    "es_ES": (["contraseña", "contrasena", "clave"], ["fecha de nacimiento", "nacido el"], ["teléfono", "telefono", "móvil", "tel"]),
    "it_IT": (["password", "parola d'ordine"], ["data di nascita", "nato il", "nata il"], ["telefono", "cellulare", "tel"]),
    "pt_BR": (["senha", "palavra-passe"], ["data de nascimento", "nascido em"], ["telefone", "celular", "tel"]),
    "nl_NL": (["wachtwoord"], ["geboortedatum", "geboren op"], ["telefoon", "telefoonnummer", "mobiel"]),
    "pl_PL": (["hasło", "haslo"], ["data urodzenia", "urodzony"], ["telefon", "komórka", "tel."]),
    "sv_SE": (["lösenord", "losenord"], ["födelsedatum", "fodelsedatum", "född"], ["telefon", "mobilnummer", "tel"]),
    "tr_TR": (["parola", "şifre", "sifre"], ["doğum tarihi", "dogum tarihi"], ["telefon", "cep telefonu", "tel"]),
}


def email(r, fakes):
    locale = r.choice(LOCALES)
    fake = fakes[locale]
    value = r.choice([fake.email, fake.company_email, fake.free_email, fake.safe_email])()
    if r.random() < 0.1:
        local, domain = value.split("@", 1)
        value = f"{local}+{fake.word() if locale.startswith('en') else 'tag'}@{domain}"
    return r.choice(["mail to {} failed", "<{}>", '"email":"{}"', "user={};", "{}", "From: {} (ok)"]), value, locale


def payment_card(r, fakes):
    value = fakes["en_US"].credit_card_number()
    # Faker draws Maestro numbers of the range 0604, in which no network issues cards.
    while value.startswith("0604"):
        value = fakes["en_US"].credit_card_number()
    if len(value) == 16 and r.random() < 0.4:
        separator = r.choice([" ", "-"])
        value = separator.join(value[i : i + 4] for i in range(0, 16, 4))
    elif len(value) == 15 and r.random() < 0.4:
        value = " ".join([value[:4], value[4:10], value[10:]])
    return r.choice(["paid with {} today", "pan={};", '"card":"{}"', "{}", "card {} declined"]), value, ""


def iban(r, fakes):
    while True:
        try:
            value = IBAN.random(random=r)
            break
        except SchwiftyException:
            continue
    text = value.formatted if r.random() < 0.5 else value.compact
    return r.choice(["to {} now", "iban={};", '"iban":"{}"', "{}", "account {}."]), text, value.country_code


def us_ssn(r, fakes):
    value = fakes["en_US"].ssn()
    return r.choice(["ssn {}", '"ssn":"{}"', "{}", "SSN: {}, ok"]), value, "en_US"


def us_itin(r, fakes):
    value = fakes["en_US"].itin()
    return r.choice(["itin {}", '"itin":"{}"', "{}", "taxpayer id: {}, ok"]), value, "en_US"


def ipv4(r, fakes):
    value = fakes["en_US"].ipv4_public() if r.random() < 0.7 else fakes["en_US"].ipv4_private()
    while value.startswith("127."):
        value = fakes["en_US"].ipv4_public()
    return r.choice(["peer {} is up", "{}", "connect {}:443", '"ip":"{}"', "from {}, port 80"]), value, ""


def ipv6(r, fakes):
    value = fakes["en_US"].ipv6()
    if r.random() < 0.5:
        groups = value.split(":")
        at = r.randrange(2, 6)
        value = ":".join(groups[:at]) + "::" + ":".join(groups[at + 1 :])
    return r.choice(["peer {} is up", "{}", "[{}]:443", '"ip":"{}"']), value, ""


def mac(r, fakes):
    value = fakes["en_US"].mac_address()
    if r.random() < 0.4:
        value = value.replace(":", "-").upper()
    return r.choice(["hwaddr {} up", "{}", "mac={};", '"mac":"{}"']), value, ""


def user_path(r, fakes):
    fake = fakes[r.choice(LOCALES)]
    value = fake.user_name()
    return (
        r.choice([
            "/home/{}/save.dat", "/Users/{}/Library", "C:\\Users\\{}\\Documents", "open /home/{}: denied",
            "\\\\server\\users\\{}\\x", "C:\\\\Users\\\\{}\\\\x", "file:///home/{}/x", "C:\\Documents and Settings\\{}\\x",
            "/var/home/{}/.cache", "/data/media/0/home/{}/x",
        ]),
        value,
        "",
    )


def url_user_info(r, fakes):
    fake = fakes["en_US"]
    value = fake.user_name() + (":" + fake.password(length=12, special_chars=False) if r.random() < 0.8 else "")
    scheme = r.choice(["https", "ftp", "postgres", "redis", "amqp", "mongodb"])
    return scheme + "://{}@db.intra/x", value, ""


def password(r, fakes):
    locale = r.choice(list(LANGUAGES))
    word = r.choice(LANGUAGES[locale][0])
    value = fakes[locale].password(length=r.randrange(8, 17), special_chars=r.random() < 0.5)
    return r.choice([word + "={}", word + ": {}", '"' + word + '":"{}"', word + " = '{}'", word + "={};x=1"]), value, locale


DATES = {
    "en_US": ["%m/%d/%Y", "%Y-%m-%d", "%B %d, %Y"], "de_DE": ["%d.%m.%Y", "%Y-%m-%d"], "fr_FR": ["%d/%m/%Y"], "es_ES": ["%d/%m/%Y", "%d-%m-%Y"],
    "it_IT": ["%d/%m/%Y"], "pt_BR": ["%d/%m/%Y"], "nl_NL": ["%d-%m-%Y"], "pl_PL": ["%d.%m.%Y", "%Y-%m-%d"],
    "sv_SE": ["%Y-%m-%d"], "tr_TR": ["%d.%m.%Y"],
}


def date_of_birth(r, fakes):
    locale = r.choice(list(LANGUAGES))
    word = r.choice(LANGUAGES[locale][1])
    value = fakes[locale].date_of_birth(minimum_age=3, maximum_age=95).strftime(r.choice(DATES[locale]))
    return r.choice([word + ": {}", word + " {}", word + "={};", '"' + word + '":"{}"']), value, locale


def random_number(r, region):
    """A valid number: the example with its last digits drawn anew."""
    kind = r.choice([PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE])
    example = phonenumbers.example_number_for_type(region, kind) or phonenumbers.example_number(region)
    for _ in range(200):
        digits = str(example.national_number)
        keep = r.randrange(2, 4)
        digits = digits[:keep] + "".join(r.choice("0123456789") for _ in digits[keep:])
        number = phonenumbers.PhoneNumber(example.country_code, int(digits))
        if phonenumbers.is_valid_number(number):
            return number
    return example


def phone(r, fakes):
    if r.random() < 0.5:
        # With a plus sign the number says itself that it is one.
        number = random_number(r, r.choice(sorted(phonenumbers.SUPPORTED_REGIONS)))
        form = r.choice([PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL])
        return r.choice(["call {} now", "{}", "tel:{}", "sms to {}."]), phonenumbers.format_number(number, form), ""
    locale = r.choice(list(LANGUAGES))
    number = random_number(r, locale[3:])
    word = r.choice(LANGUAGES[locale][2])
    value = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    return r.choice([word + ": {}", word + " {}", '"' + word + '":"{}"', word + "={};"]), value, locale


def imei(r, fakes):
    value = "35" + "".join(r.choice("0123456789") for _ in range(12))
    value += luhn.calc_check_digit(value)
    return r.choice(["imei={};", "IMEI: {}", '"imei":"{}"', "imei {}"]), value, ""


def lat_long(r, fakes):
    lat, lon = f"{r.uniform(-80, 80):.{r.randrange(4, 8)}f}", f"{r.uniform(-179, 179):.{r.randrange(4, 8)}f}"
    form = r.choice(["geo:{}", "location: {}", "coords={};", "gps {}", "position {}", "ll={}"])
    return form, f"{lat},{lon}" if r.random() < 0.5 else f"{lat}, {lon}", ""


def ssid(r, fakes):
    value = r.choice([fakes["en_US"].last_name() + "-" + str(r.randrange(100, 999)), "FRITZ!Box " + str(r.randrange(1000, 9999)), fakes["en_US"].last_name() + " WiFi"])
    return r.choice(['ssid="{}"', 'SSID: "{}"', '"ssid":"{}"']), value, ""


def mrz(r, fakes):
    """The second line of a passport's machine-readable zone (ICAO 9303-4)."""
    def check(text):
        order = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        return str(sum((0 if c == "<" else order.index(c)) * (7, 3, 1)[i % 3] for i, c in enumerate(text)) % 10)
    number = "".join(r.choice("ABCDEFGHJKLMNPRSTUVWXYZ0123456789") for _ in range(9))
    born = f"{r.randrange(100):02}{r.randrange(1, 13):02}{r.randrange(1, 29):02}"
    ends = f"{r.randrange(24, 36):02}{r.randrange(1, 13):02}{r.randrange(1, 29):02}"
    optional = "".join(r.choice("0123456789") for _ in range(r.randrange(0, 9))).ljust(14, "<")
    country = r.choice(["D<<", "FRA", "USA", "GBR", "ESP", "NLD", "UTO", "CHE"])
    optional_check = check(optional) if optional.strip("<") else "<"
    first = number + check(number)
    rest = born + check(born)
    end = ends + check(ends)
    last = check(first + rest + end + optional + optional_check)
    value = first + country + rest + r.choice("MF<") + end + optional + optional_check + last
    return r.choice(["{}", "mrz={};", '"mrz":"{}"']), value, ""


def steam_id(r, fakes):
    value = str(76561197960265728 + r.randrange(1, 1_500_000_000))
    return r.choice(["player {} joined", "{}", "steamid={};", '"id":"{}"']), value, ""


KINDS = {
    "email": email, "payment-card": payment_card, "iban": iban, "us-ssn": us_ssn, "us-itin": us_itin, "ipv4": ipv4,
    "ipv6": ipv6, "mac": mac, "user-path": user_path, "url-user-info": url_user_info, "password": password,
    "date-of-birth": date_of_birth, "phone": phone, "imei": imei, "lat-long": lat_long, "ssid": ssid, "mrz": mrz,
    "steam-id": steam_id,
}
