/* oci/image_manifest.h: documents of images, right and wrong. What they lead to is in test_image_store.c. */
#include "oci/image_manifest.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGEST "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define DESCRIPTOR "{\"digest\":\"" DIGEST "\",\"size\":5}"
#define MAX_LAYERS 2

struct wrong {
    const char *text;
    const char *why; /* in the message */
};

static void assert_refused(const struct wrong *wrong, int result, const struct error *err)
{
    cr_assert_eq(result, -1, "%s is taken", wrong->text);
    cr_assert(err->code == ERROR_INVALID_REQUEST || err->code == ERROR_PAYLOAD_TOO_LARGE);
    cr_assert_not_null(strstr(err->message, wrong->why), "%s: %s", wrong->text, err->message);
}

Test(image_manifest, wrong_manifests_are_refused_with_the_reason)
{
    static const struct wrong wrongs[] = {
        {"", "the image manifest"},
        {"7", "neither a JSON object nor an array"},
        {"{\"schemaVersion\":1,\"layers\":[]}", "schema version 1"},
        {"{\"schemaVersion\":2}", "no list of layers"},
        {"{\"schemaVersion\":2,\"layers\":{}}", "no list of layers"},
        {"{\"schemaVersion\":2,\"layers\":[]}", "config has no digest"},
        {"{\"schemaVersion\":2,\"config\":{\"digest\":7},\"layers\":[]}", "config has no digest"},
        {"{\"schemaVersion\":2,\"config\":{\"digest\":\"sha512:00\"},\"layers\":[]}", "sha512:00"},
        {"{\"schemaVersion\":2,\"config\":{\"digest\":\"" DIGEST "\"},\"layers\":[]}", "size"},
        {"{\"schemaVersion\":2,\"config\":{\"digest\":\"" DIGEST "\",\"size\":-1},\"layers\":[]}",
         "size"},
        {"{\"schemaVersion\":2,\"config\":" DESCRIPTOR ",\"layers\":[7]}", "layer 1 has no digest"},
        {"{\"schemaVersion\":2,\"config\":" DESCRIPTOR ",\"layers\":[" DESCRIPTOR
         ",{\"mediaType\":\"application/"
         "vnd.oci.image.layer.v1.tar+gzip+encrypted\",\"digest\":\"" DIGEST "\",\"size\":1}]}",
         "layer 2 is encrypted"},
        {"{\"schemaVersion\":2,\"config\":" DESCRIPTOR ",\"layers\":[1,2,3]}", "3 layers"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(wrongs); i++) {
        struct image_manifest manifest;
        struct error err = {0};
        assert_refused(&wrongs[i],
                       image_manifest_read(wrongs[i].text, strlen(wrongs[i].text), MAX_LAYERS,
                                           &manifest, &err),
                       &err);
    }
}

Test(image_manifest, an_index_in_a_manifests_place_is_told_apart)
{
    static const char text[] = "{\"schemaVersion\":2,\"manifests\":[]}";
    struct image_manifest manifest;
    struct error err = {0};
    cr_assert_eq(image_manifest_read(text, strlen(text), MAX_LAYERS, &manifest, &err), 0, "%s",
                 err.message);
    cr_assert(manifest.is_index);
}

Test(image_manifest, wrong_configs_are_refused_with_the_reason)
{
    static const struct wrong wrongs[] = {
        {"[]", "no JSON object"},
        {"{\"architecture\":7}", "\"architecture\" is no text"},
        {"{\"os\":\"li\\u0000nux\"}", "\"os\" is no text"},
        {"{\"config\":[]}", "\"config\" is no object"},
        {"{\"config\":{\"User\":{}}}", "\"User\" is no text"},
        {"{\"config\":{\"Env\":\"A=1\"}}", "\"Env\" is no list of strings"},
        {"{\"config\":{\"Env\":[\"A=1\",7]}}", "\"Env\" is no list of strings"},
        {"{\"config\":{\"Cmd\":{\"a\":1}}}", "\"Cmd\" is no list of strings"},
        {"{\"config\":{\"Entrypoint\":[null]}}", "\"Entrypoint\" is no list of strings"},
        {"{\"rootfs\":{\"type\":\"other\"}}", "type \"layers\""},
        {"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"x\"]}}", "diff_id 1"},
        {"{\"rootfs\":{\"diff_ids\":[\"1\",\"2\",\"3\"]}}", "3 layers"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(wrongs); i++) {
        struct image_config config;
        struct error err = {0};
        assert_refused(
            &wrongs[i],
            image_config_read(wrongs[i].text, strlen(wrongs[i].text), MAX_LAYERS, &config, &err),
            &err);
    }
}

static int64_t created(const char *time)
{
    char text[128];
    struct image_config config;
    struct error err = {0};
    snprintf(text, sizeof(text), "{\"created\":\"%s\",\"config\":null}", time);
    cr_assert_eq(image_config_read(text, strlen(text), MAX_LAYERS, &config, &err), 0, "%s",
                 err.message);
    int64_t seconds = config.created;
    cr_assert_str_eq(config.user, "");
    cr_assert_null(config.env[0]);
    image_config_deinit(&config);
    return seconds;
}

Test(image_manifest, times_have_zones_and_may_be_nonsense)
{
    cr_assert_eq(created("1970-01-02T00:00:00Z"), 86400);
    cr_assert_eq(created("1970-01-02T00:00:00.123456789Z"), 86400);
    cr_assert_eq(created("1970-01-02T00:00:00+01:30"), 86400 - 5400);
    cr_assert_eq(created("1970-01-02T00:00:00-01:30"), 86400 + 5400);
    cr_assert_eq(created("yesterday"), 0);
    cr_assert_eq(created("0001-01-01T00:00:00Z"), 0);
}

Test(image_manifest, wrong_docker_manifests_are_refused_with_the_reason)
{
    static const struct wrong wrongs[] = {
        {"{}", "no list of images"},
        {"[]", "no list of images"},
        {"[{}]", "no \"Config\""},
        {"[{\"Config\":\"\"}]", "no \"Config\""},
        {"[{\"Config\":\"c\",\"Layers\":\"x\"}]", "\"Layers\" is no list"},
        {"[{\"Config\":\"c\",\"Layers\":[\"1\",\"2\",\"3\"]}]", "3 layers"},
        {"[{\"Config\":\"c\"},{\"Config\":\"d\"}]", "(they have no names)"},
        {"[{\"Config\":\"c\",\"RepoTags\":[\"b:1\",7]},{\"Config\":\"d\"}]", "b:1"},
    };
    static const struct image_choice choice = {.name = "a:latest"};
    for (size_t i = 0; i < ARRAY_LENGTH(wrongs); i++) {
        struct docker_manifest manifest;
        struct error err = {0};
        assert_refused(&wrongs[i],
                       docker_manifest_choose(wrongs[i].text, strlen(wrongs[i].text), &choice,
                                              MAX_LAYERS, &manifest, &err),
                       &err);
    }
}

Test(image_manifest, docker_images_are_chosen_by_name_or_reference)
{
    static const char text[] = "[{\"Config\":\"1\",\"RepoTags\":[\"a:latest\"]},"
                               "{\"Config\":\"2\",\"RepoTags\":null},"
                               "{\"Config\":\"3\",\"RepoTags\":[\"x/b:1\",\"host/c/d:2\"]}]";
    static const struct {
        struct image_choice choice;
        const char *config; /* NULL: refused */
    } cases[] = {
        {{.name = "a:latest"}, "1"},
        {{.name = "b:1"}, "3"},
        {{.name = "c/d:2"}, "3"},
        {{.name = "/d:2"}, NULL},
        {{.name = "e:1"}, NULL},
        {{.reference = "x/b:1", .name = "a:latest"}, "3"},
        {{.reference = "b:1", .name = "a:latest"}, NULL},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct docker_manifest manifest = {0};
        struct error err = {0};
        int result = docker_manifest_choose(text, strlen(text), &cases[i].choice, MAX_LAYERS,
                                            &manifest, &err);
        cr_assert_eq(result, cases[i].config ? 0 : -1, "case %zu: %s", i, err.message);
        if (result == 0)
            cr_assert_str_eq(manifest.config, cases[i].config, "case %zu", i);
        docker_manifest_deinit(&manifest);
    }
}

Test(image_manifest, wrong_indexes_are_refused_with_the_reason)
{
    static const struct wrong wrongs[] = {
        {"[]", "no list of manifests"},
        {"{\"manifests\":{}}", "no list of manifests"},
        {"{\"manifests\":[]}", "there is: nothing"},
        {"{\"manifests\":[{}]}", "there is no image for"},
        {"{\"manifests\":[{\"digest\":\"sha256:1\"}]}", "sha256:1"},
        {"{\"manifests\":[{\"digest\":\"" DIGEST "\"}]}", "size"},
        {"{\"manifests\":[{\"digest\":\"" DIGEST "\",\"size\":1,\"annotations\":"
         "{\"vnd.docker.reference.type\":\"attestation-manifest\"}}]}",
         "there is no image for"},
        {"{\"manifests\":[{\"digest\":\"1\"},{\"digest\":\"2\"}]}", "several images"},
        {"{\"manifests\":[{\"digest\":\"1\",\"platform\":{\"os\":\"plan9\"}}]}",
         "no image for linux"},
    };
    static const struct image_choice choice = {.name = "a:latest"};
    for (size_t i = 0; i < ARRAY_LENGTH(wrongs); i++) {
        struct image_descriptor descriptor;
        struct error err = {0};
        assert_refused(
            &wrongs[i],
            image_index_choose(wrongs[i].text, strlen(wrongs[i].text), &choice, &descriptor, &err),
            &err);
    }
}

/* Two names of one image are one image. */
Test(image_manifest, the_same_image_twice_needs_no_choice)
{
    static const char text[] = "{\"manifests\":[" DESCRIPTOR "," DESCRIPTOR "]}";
    static const struct image_choice choice = {0};
    struct image_descriptor descriptor;
    struct error err = {0};
    cr_assert_eq(image_index_choose(text, strlen(text), &choice, &descriptor, &err), 0, "%s",
                 err.message);
    cr_assert_str_eq(descriptor.digest, DIGEST);
    cr_assert_eq(descriptor.size, 5);
}

Test(image_manifest, only_whole_lower_case_sha256_digests_are_valid)
{
    cr_assert(image_digest_valid(DIGEST));
    cr_assert_not(image_digest_valid(""));
    cr_assert_not(image_digest_valid("sha256:"));
    cr_assert_not(image_digest_valid(DIGEST "0"));
    cr_assert_not(image_digest_valid(
        "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"));
    cr_assert_not(image_digest_valid(
        "sha256:../0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
}
