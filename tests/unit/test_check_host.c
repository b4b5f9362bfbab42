/* What is known of runtimes' versions, and the table of the host. */
#include "worker/check_host.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const char *problems(const char *version)
{
    static char text[256];
    check_host_known_problems(version, text, sizeof(text));
    return text;
}

Test(check_host, versions_with_known_problems_are_named)
{
    cr_assert(strstr(problems("runc version 1.1.5+ds1"), "CVE-2024-21626"));
    cr_assert(strstr(problems("runc version 1.1.5+ds1"), "CVE-2025-31133"));
    cr_assert_not(strstr(problems("runc version 1.1.12"), "CVE-2024-21626"));
    cr_assert(strstr(problems("runc version 1.2.7"), "CVE-2025-52881"));
    cr_assert_str_empty(problems("runc version 1.2.8"));
    cr_assert(strstr(problems("runc version 1.3.2"), "CVE-2025-52881"));
    cr_assert_str_empty(problems("runc version 1.3.3"));
    cr_assert_str_empty(problems("runc version 2.0.0"));
    cr_assert_str_empty(problems("crun version 1.8.1"));
    cr_assert_str_empty(problems(""));
}

/* The whole table as text; free() it. */
static char *table(char *oci_runtime, int *ret_status)
{
    static char apparmor[] = "auto", images[] = "/nonexistent/images";
    static char libexec[] = "/nonexistent/libexec";
    struct worker_settings settings = {.apparmor = apparmor,
                                       .oci_runtime = oci_runtime,
                                       .image_dir = images,
                                       .libexec_dir = libexec};
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    *ret_status = check_host(&settings, out);
    fclose(out);
    return text;
}

Test(check_host, what_is_missing_is_a_row_that_says_no_and_an_exit_status)
{
    char runtime[] = "/nonexistent/runc";
    int status;
    char *text = table(runtime, &status);
    cr_assert_eq(status, 1);
    cr_assert(strstr(text, "\nOCI runtime   no    \"/nonexistent/runc\" (WORKER_OCI_RUNTIME)"),
              "%s", text);
    cr_assert(strstr(text, "\nfaas-init     no    /nonexistent/libexec/init"), "%s", text);
    cr_assert(strstr(text, "\nimages        warn  /nonexistent/images is not there"), "%s", text);
    cr_assert(strstr(text, "\nseccomp       ok "), "%s", text);
    free(text);
}
