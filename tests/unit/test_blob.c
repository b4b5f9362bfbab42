/* Bytes that several hold. */
#include "base/blob.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void count(void *data)
{
    ++*(int *)data;
}

Test(blob, what_was_lent_is_given_back_once_by_the_last_who_holds_it)
{
    int given_back = 0;
    struct blob *blob = blob_new_lent("lent", 4, count, &given_back);
    cr_assert_str_eq(blob->bytes, "lent");
    cr_assert_eq(blob->len, 4);
    cr_assert_eq(blob_ref(blob), blob);
    blob_unref(blob);
    cr_assert_eq(given_back, 0);
    blob_unref(blob);
    cr_assert_eq(given_back, 1);
    blob_unref(NULL);
}

Test(blob, memory_is_freed)
{
    struct blob *blob = blob_new(calloc(1, 10), 10);
    cr_assert_eq(blob->len, 10);
    blob_unref(blob); /* a leak is told by the sanitizer */
}
