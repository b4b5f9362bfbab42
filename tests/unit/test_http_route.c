/* Routes and percent-encoding. */
#include "base/http_route.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const struct http_route routes[] = {
    {.method = "GET", .pattern = "/v1/functions"},
    {.method = "POST", .pattern = "/v1/functions"},
    {.method = "GET", .pattern = "/v1/functions/{name}"},
    {.method = "POST", .pattern = "/v1/functions/{name}/invocations"},
    {.method = "*", .pattern = "/fn/{name}"},
    {.method = "GET", .pattern = "/files/{path...}"},
    {.method = "GET", .pattern = "/v1/worker/functions/{name}/{version}"},
};

static int found(const char *method, const char *path, struct http_route_match *match)
{
    http_route_find(routes, sizeof(routes) / sizeof(routes[0]), method, path, match);
    return match->route ? (int)(match->route - routes) : -1;
}

Test(http_route, the_method_decides_between_routes_of_one_path)
{
    struct http_route_match match;
    cr_expect_eq(found("GET", "/v1/functions", &match), 0);
    cr_expect_eq(found("POST", "/v1/functions", &match), 1);
    cr_expect_eq(found("HEAD", "/v1/functions", &match), 0);
    cr_expect_eq(found("PATCH", "/v1/functions", &match), -1);
    cr_expect(match.path_known);
    cr_expect_eq(found("GET", "/v1/function", &match), -1);
    cr_expect(!match.path_known);
}

Test(http_route, parameters_are_one_segment_decoded)
{
    struct http_route_match match;
    cr_expect_eq(found("POST", "/v1/functions/a%2Fb%20c/invocations", &match), 3);
    cr_assert_eq(match.param_count, 1);
    cr_expect_str_eq(match.params[0].value, "a/b c");
    http_route_match_deinit(&match);
    cr_expect_eq(found("GET", "/v1/worker/functions/hello/12", &match), 6);
    cr_assert_eq(match.param_count, 2);
    cr_expect_str_eq(match.params[0].value, "hello");
    cr_expect_str_eq(match.params[1].value, "12");
    http_route_match_deinit(&match);
}

Test(http_route, a_rest_parameter_takes_slashes)
{
    struct http_route_match match;
    cr_expect_eq(found("GET", "/files/a/b/c", &match), 5);
    cr_expect_str_eq(match.params[0].value, "a/b/c");
    http_route_match_deinit(&match);
}

Test(http_route, an_empty_or_extra_segment_is_no_match)
{
    struct http_route_match match;
    cr_expect_eq(found("GET", "/v1/functions/", &match), -1);
    cr_expect_eq(found("GET", "/fn/a/b", &match), -1);
    cr_expect_eq(found("POST", "/v1/functions//invocations", &match), -1);
}

Test(http_route, broken_escapes_nuls_and_bad_utf8_are_no_match)
{
    struct http_route_match match;
    const char *const bad[] = {"/fn/%", "/fn/%4", "/fn/%zz", "/fn/%00", "/fn/%ff%fe"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(found("GET", bad[i], &match), -1, "%s", bad[i]);
}

Test(http_route, an_endless_path_is_no_match)
{
    struct http_route_match match;
    char *path = malloc(HTTP_PATH_MAX + 100);
    cr_assert_not_null(path);
    memset(path, 'a', HTTP_PATH_MAX + 99);
    memcpy(path, "/fn/", 4);
    path[HTTP_PATH_MAX + 99] = '\0';
    cr_expect_eq(found("GET", path, &match), -1);
    free(path);
}

Test(http_route, plus_is_a_space_in_queries_only)
{
    char *query = http_percent_decode("a+b%2B", 6, true);
    char *path = http_percent_decode("a+b", 3, false);
    cr_expect_str_eq(query, "a b+");
    cr_expect_str_eq(path, "a+b");
    free(query);
    free(path);
}
