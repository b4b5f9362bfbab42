/* Tokens: made once, kept to their owner, told apart. */
#include "controller/auth.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char folder[64];
static struct auth auth;
static struct error err;

static void setup(void)
{
    strcpy(folder, "/tmp/faas-test-auth-XXXXXX");
    cr_assert(mkdtemp(folder));
}

static void teardown(void)
{
    remove_tree(folder, NULL);
}

TestSuite(auth, .init = setup, .fini = teardown);

/* "Bearer TOKEN" from a file of the folder. */
static const char *header_from(const char *name)
{
    static char header[300];
    char path[128];
    with_cleanup(buffer_deinit) struct buffer token = BUFFER_INIT(256);
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    cr_assert_eq(buffer_read_file(&token, path, &err), 0, "%s", err.message);
    snprintf(header, sizeof(header), "Bearer %.*s", (int)strcspn(token.data, "\n"), token.data);
    return header;
}

static int role_of(const char *header)
{
    enum auth_role role = AUTH_NOBODY;
    if (auth_role(&auth, header, &role, &err) < 0)
        return -(int)err.code;
    return (int)role;
}

Test(auth, tokens_are_made_once_and_told_apart)
{
    cr_assert_eq(auth_load(&auth, folder, "", &err), 0, "%s", err.message);
    cr_expect_eq(role_of(header_from("token")), AUTH_USER);
    cr_expect_eq(role_of(header_from("worker-token")), AUTH_WORKER);
    struct auth again;
    cr_assert_eq(auth_load(&again, folder, "", &err), 0);
    cr_expect_arr_eq(&again, &auth, sizeof(auth), "the second start made others");
}

Test(auth, anything_else_is_nobody)
{
    char header[400];
    cr_assert_eq(auth_load(&auth, folder, "", &err), 0);
    snprintf(header, sizeof(header), "%sx", header_from("token"));
    static const char *const bad[] = {"", "Bearer", "Bearer ", "Basic eA==", "Bearer x"};
    cr_expect_eq(role_of(NULL), -ERROR_UNAUTHORIZED);
    cr_expect_eq(role_of(header), -ERROR_UNAUTHORIZED);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        cr_expect_eq(role_of(bad[i]), -ERROR_UNAUTHORIZED, "%s", bad[i]);
}

Test(auth, the_workers_token_may_be_a_setting)
{
    cr_assert_eq(auth_load(&auth, folder, "0123456789abcdef", &err), 0);
    cr_expect_eq(role_of("bearer 0123456789abcdef"), AUTH_WORKER);
    char path[128];
    snprintf(path, sizeof(path), "%s/worker-token", folder);
    cr_expect_not(path_exists(path));
}

Test(auth, a_token_that_others_can_read_or_that_is_short_is_refused)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/token", folder);
    cr_assert_eq(write_file_atomic(path, "0123456789abcdef0123", 20, 0644, false, &err), 0);
    cr_expect_eq(auth_load(&auth, folder, "", &err), -1);
    cr_expect(strstr(err.message, "chmod 600"), "%s", err.message);
    cr_assert_eq(write_file_atomic(path, "short\n", 6, 0600, false, &err), 0);
    cr_expect_eq(auth_load(&auth, folder, "", &err), -1);
    cr_expect(strstr(err.message, "16 characters"), "%s", err.message);
}
