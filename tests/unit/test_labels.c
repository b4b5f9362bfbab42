/* Labels of workers and what functions require of them. */
#include "model/labels.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct error err;

Test(labels, keys_and_values_have_their_letters_and_lengths)
{
    static const char *const good[] = {"gpu", "gpu=a100", "a.b/c_d-e=x.y/z:1@2+3-4_5", "9",
                                       "name=host-1"};
    static const char *const bad[] = {"",    "=",   "=a",    "gpu=", "-gpu",  "_x",
                                      "a b", "a,b", "a=b=c", "a\n",  "a=b c", "a=\xc3\xa9"};
    char key[80] = "", value[160] = "a=";
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_expect_eq(label_check(good[i], &err), 0, "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(label_check(bad[i], &err), -1, "%s", bad[i]);
    memset(key, 'k', 63);
    memset(value + 2, 'v', 127);
    cr_expect_eq(label_check(key, &err), 0);
    cr_expect_eq(label_check(value, &err), 0);
    key[63] = 'k';
    value[129] = 'v';
    cr_expect_eq(label_check(key, &err), -1);
    cr_expect_eq(label_check(value, &err), -1);
}

Test(labels, a_list_is_read_each_once)
{
    struct labels labels = {0};
    cr_assert_eq(labels_parse(" gpu , zone=a,,gpu,zone=b ,", &labels, &err), 0, "%s", err.message);
    cr_assert_eq(labels.count, 3);
    cr_expect_str_eq(labels.items[0], "gpu");
    cr_expect_str_eq(labels.items[1], "zone=a");
    cr_expect_str_eq(labels.items[2], "zone=b");
    labels_deinit(&labels);
}

Test(labels, a_list_has_a_bound_and_so_has_each)
{
    struct labels labels = {0};
    char list[400] = "", text[16];
    for (int i = 0; i < LABELS_MAX; i++) {
        snprintf(text, sizeof(text), "l%d,", i);
        strcat(list, text);
    }
    cr_expect_eq(labels_parse(list, &labels, &err), 0);
    cr_expect_eq(labels_add(&labels, "one-more", &err), -1);
    cr_expect_eq(labels_add(&labels, "l3", &err), 0, "it is there");
    labels_deinit(&labels);
    memset(list, 'x', 399);
    cr_expect_eq(labels_parse(list, &labels, &err), -1);
    labels_deinit(&labels);
}

Test(labels, a_key_is_met_by_any_value_and_a_value_by_itself)
{
    struct labels labels = {0};
    cr_assert_eq(labels_parse("gpu=a100,fast", &labels, &err), 0);
    cr_expect(labels_meet(&labels, "gpu"));
    cr_expect(labels_meet(&labels, "gpu=a100"));
    cr_expect(labels_meet(&labels, "fast"));
    cr_expect_not(labels_meet(&labels, "gpu=a10"));
    cr_expect_not(labels_meet(&labels, "gp"));
    cr_expect_not(labels_meet(&labels, "fast=1"));
    cr_expect_not(labels_meet(&labels, "faster"));
    labels_deinit(&labels);
}
