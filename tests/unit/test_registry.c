/* The functions in memory: versions, references, order of names, numbers that go on. */
#include "controller/registry.h"

#include "base/loop.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct registry registry;
static char gone[256];

static void note_gone(void *data, const struct function_version *version)
{
    (void)data;
    strncat(gone, version->key, sizeof(gone) - strlen(gone) - 2);
    strcat(gone, " ");
}

static void setup(void)
{
    gone[0] = '\0';
    registry_init(&registry, note_gone, NULL);
}

static void teardown(void)
{
    registry_deinit(&registry);
}

TestSuite(registry, .init = setup, .fini = teardown, .timeout = 60);

static struct function_entry *add(const char *name, enum function_state state)
{
    struct function_entry *entry = registry_entry(&registry, name, NULL);
    struct function_record record = {.state = state, .created_at_ns = 1, .updated_at_ns = 2};
    function_spec_init(&record.spec);
    record.spec.name = strdup(name);
    record.spec.version = entry->last_version + 1;
    cr_assert_eq(registry_add_version(&registry, entry, &record, NULL), 0);
    return entry;
}

static long long serving(const struct function_entry *entry)
{
    return entry->current ? entry->current->record.spec.version : 0;
}

Test(registry, a_name_alone_is_no_function)
{
    cr_expect_null(registry_find(&registry, "a"));
    cr_assert(registry_entry(&registry, "a", NULL));
    cr_expect_null(registry_find(&registry, "a"));
    cr_expect_eq(registry.sorted_count, 0);
}

Test(registry, a_version_serves_when_it_is_ready_and_not_before)
{
    struct function_entry *entry = add("a", FUNCTION_READY);
    add("a", FUNCTION_BUILDING);
    cr_expect_eq(serving(entry), 1);
    cr_expect_eq(entry->newest->record.spec.version, 2);
    registry_activate(&registry, entry->newest);
    cr_expect_eq(serving(entry), 2);
    cr_expect_eq(entry->newest->record.state, FUNCTION_READY);
    cr_expect_str_eq(gone, "a/1 ");
}

Test(registry, a_build_that_ends_late_does_not_replace_a_newer_version)
{
    struct function_entry *entry = add("a", FUNCTION_BUILDING);
    struct function_version *first = version_ref(entry->newest);
    add("a", FUNCTION_READY);
    registry_activate(&registry, first);
    cr_expect_eq(serving(entry), 2);
    version_unref(&registry, first);
    cr_expect_str_eq(gone, "a/1 ");
}

Test(registry, a_failed_version_leaves_the_one_before_in_place)
{
    struct function_entry *entry = add("a", FUNCTION_READY);
    add("a", FUNCTION_FAILED);
    cr_expect_eq(serving(entry), 1);
    add("a", FUNCTION_READY);
    cr_expect_eq(serving(entry), 3);
    cr_expect_str_eq(gone, "a/2 a/1 ");
}

Test(registry, a_version_lives_as_long_as_it_is_referred_to)
{
    struct function_entry *entry = add("a", FUNCTION_READY);
    struct function_version *first = version_ref(entry->current);
    add("a", FUNCTION_READY);
    cr_expect_eq(registry_find_version(&registry, "a", 1), first);
    registry_delete(&registry, entry);
    cr_expect_eq(registry_find_version(&registry, "a", 1), first);
    cr_expect_null(registry_find_version(&registry, "a", 2));
    version_unref(&registry, first);
    cr_expect_null(registry_find_version(&registry, "a", 1));
    cr_expect_str_eq(gone, "a/2 a/1 ");
    cr_expect_eq(entry->live_versions, 0);
}

Test(registry, a_name_used_again_goes_on_counting)
{
    struct function_entry *entry = add("a", FUNCTION_READY);
    registry_delete(&registry, entry);
    cr_expect_null(registry_find(&registry, "a"));
    cr_expect_eq(add("a", FUNCTION_READY), entry);
    cr_expect_eq(serving(entry), 2);
}

Test(registry, names_are_in_order_and_sought_by_cursor)
{
    static const char *const names[] = {"m", "a", "z", "b", "y"};
    for (size_t i = 0; i < 5; i++)
        add(names[i], FUNCTION_READY);
    registry_delete(&registry, registry_find(&registry, "m"));
    static const char *const sorted[] = {"a", "b", "y", "z"};
    cr_assert_eq(registry.sorted_count, 4);
    for (size_t i = 0; i < 4; i++)
        cr_expect_str_eq(registry.sorted[i]->name, sorted[i]);
    cr_expect_eq(registry_seek(&registry, NULL), 0);
    cr_expect_eq(registry_seek(&registry, "a"), 1);
    cr_expect_eq(registry_seek(&registry, "m"), 2, "a cursor whose function is gone");
    cr_expect_eq(registry_seek(&registry, "z"), 4);
}

Test(registry, a_hundred_thousand_functions_are_all_found)
{
    char name[32];
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof(name), "function-%06d", i);
        add(name, FUNCTION_READY);
    }
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof(name), "function-%06d", i);
        const struct function_entry *entry = registry_find(&registry, name);
        cr_assert(entry);
        cr_assert_str_eq(registry.sorted[i]->name, name);
    }
}
