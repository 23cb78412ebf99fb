/* The least that a C program does to have its crashes reported.
 *
 *   minimal SPOOL [DESTINATION [CA]]
 *
 * SPOOL is a directory for sealed reports; DESTINATION is crashpad=URL or backtrace=URL, for example that of
 * `cenotaph collect`, whose ca.pem is CA then. The program ends by writing through a null pointer. */
#include <stdio.h>

#include "cenotaph.h"

/* A failure is worth a line and no more: the program goes on without Cenotaph. */
static cenotaph_status check(const char *what, cenotaph_status status)
{
    char why[256];
    if (status != CENOTAPH_STATUS_OK) {
        cenotaph_last_error(why, sizeof why);
        fprintf(stderr, "%s: %s: %s\n", what, cenotaph_status_message(status), why);
    }
    return status;
}

int main(int argc, char **argv)
{
    int *volatile nowhere = NULL;
    cenotaph_options *options;

    /* First of all: Cenotaph's monitor is this program, started again. It does not get past this line. */
    cenotaph_monitor_entry();
    if (argc < 2) {
        fprintf(stderr, "usage: minimal SPOOL [DESTINATION [CA]]\n");
        return 2;
    }

    options = cenotaph_options_new("minimal", "1.0.0");
    check("spool", cenotaph_options_set_spool(options, argv[1]));
    check("consent policy", cenotaph_options_set_consent_policy(options, CENOTAPH_CONSENT_POLICY_ASK_FIRST));
    if (argc > 2)
        check("destination", cenotaph_options_add_destination(options, argv[2]));
    if (argc > 3)
        check("certificate authority", cenotaph_options_add_certificate_authority(options, argv[3]));
    check("install", cenotaph_install(options)); /* takes the options, whatever comes of it */

    /* When the person has said yes. Until then reports are held sealed and nothing is sent. */
    check("grant", cenotaph_consent_grant(CENOTAPH_BASIS_PERSON));

    check("attribute", cenotaph_set_attribute_string("level", "castle"));
    check("breadcrumb", cenotaph_add_breadcrumb(CENOTAPH_LEVEL_INFO, "game", "the gate opened"));

    *nowhere = 1;
    return 0;
}
