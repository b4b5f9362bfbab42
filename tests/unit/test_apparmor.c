/* The AppArmor profile: its text everywhere, its way into the kernel where there is AppArmor (the virtual machine of the tests). */
#include "oci/apparmor.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

static bool is_loaded(const char *name)
{
    struct buffer text = BUFFER_INIT(1024 * 1024);
    bool found = buffer_read_file(&text, "/sys/kernel/security/apparmor/profiles", NULL) == 0 &&
                 strstr(text.data, name);
    buffer_deinit(&text);
    return found;
}

Test(apparmor, the_profile_has_its_name_and_denies_mounts)
{
    struct buffer text = BUFFER_INIT(64 * 1024);
    cr_assert_eq(oci_apparmor_write("faas-unit", &text, NULL), 0);
    cr_assert(strstr(text.data, "profile faas-unit "));
    cr_assert(strstr(text.data, "peer=faas-unit,"));
    cr_assert(strstr(text.data, "deny mount,"));
    buffer_deinit(&text);
}

Test(apparmor, is_loaded_replaced_and_removed)
{
    struct error err = {0};
    if (!oci_apparmor_enabled())
        cr_skip_test("this kernel has no AppArmor");
    cr_assert_eq(oci_apparmor_load("faas-unit-test", &err), 0, "%s", err.message);
    cr_assert_eq(oci_apparmor_load("faas-unit-test", &err), 0, "%s", err.message);
    cr_assert(is_loaded("faas-unit-test (enforce)"));
    cr_assert_eq(oci_apparmor_unload("faas-unit-test", &err), 0, "%s", err.message);
    cr_assert_not(is_loaded("faas-unit-test"));
    cr_assert_eq(oci_apparmor_unload("faas-unit-test", &err), 0, "%s", err.message);
}
