/* A crash with values that only the program's own rules can find: `rules SPOOL [text RULES | file FILE]`. Strict C99. */
#include <stdlib.h>
#include <string.h>

#include "cenotaph.h"

/* Where the compiler may not look. */
static char *volatile kept;

int main(int argc, char **argv)
{
    char text[64] = "rank gold PLR-KQZX-418203 of the castle";
    unsigned short wide[64] = {0};
    static const char other[] = "rank gold PLR-ZBFN-351728 of the castle";
    volatile int *volatile nowhere = NULL;
    cenotaph_options *options;
    size_t at;

    if (cenotaph_monitor_entry() != CENOTAPH_STATUS_OK || argc < 2)
        return 3;
    for (at = 0; other[at] != '\0'; at++)
        wide[at] = (unsigned char)other[at];
    kept = text;
    kept = (char *)wide;
    options = cenotaph_options_new("rules", "1.2.3");
    if (cenotaph_options_set_spool(options, argv[1]) != CENOTAPH_STATUS_OK ||
        cenotaph_options_set_consent_policy(options, CENOTAPH_CONSENT_POLICY_ASK_FIRST) != CENOTAPH_STATUS_OK ||
        cenotaph_options_set_release_at(options, CENOTAPH_RELEASE_AT_SPOOLED) != CENOTAPH_STATUS_OK ||
        cenotaph_options_set_deadline_ms(options, 120000) != CENOTAPH_STATUS_OK)
        return 4;
    if (argc == 4 && strcmp(argv[2], "text") == 0 &&
        cenotaph_options_add_rules(options, argv[3]) != CENOTAPH_STATUS_OK)
        return 5;
    if (argc == 4 && strcmp(argv[2], "file") == 0 &&
        cenotaph_options_add_rules_file(options, argv[3]) != CENOTAPH_STATUS_OK)
        return 6;
    if (cenotaph_install(options) != CENOTAPH_STATUS_OK)
        return 7;
    *nowhere = 1;
    return kept == NULL;
}
