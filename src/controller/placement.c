/* Which workers a version may run on: see placement.h. */
#include "controller/placement.h"

#include "controller/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- places ---- */

static void changed(struct placement *placement)
{
    if (++placement->generation == 0)
        placement->generation = 1;
}

int placement_enter(struct placement *placement)
{
    for (int i = 0; i < PLACEMENT_PLACES; i++) {
        if (placement->places[i].taken)
            continue;
        placement->places[i].taken = true;
        placement->places[i].standing = PLACEMENT_GONE;
        changed(placement);
        return i;
    }
    return -1;
}

void placement_leave(struct placement *placement, int place)
{
    labels_deinit(&placement->places[place].labels);
    placement->places[place].taken = false;
    placement->places[place].standing = PLACEMENT_GONE;
    changed(placement);
}

bool placement_set_labels(struct placement *placement, int place, struct labels *labels)
{
    struct labels *known = &placement->places[place].labels;
    bool same = labels_equal(known, labels);
    labels_deinit(known);
    *known = *labels;
    *labels = (struct labels){0};
    if (!same)
        changed(placement);
    return !same;
}

void placement_set_standing(struct placement *placement, int place,
                            enum placement_standing standing)
{
    if (placement->places[place].standing == standing)
        return;
    placement->places[place].standing = standing;
    changed(placement);
}

/* ---- what is required ---- */

bool placement_constrained(const struct function_version *version)
{
    return version->record.spec.requires.count > 0 || version->record.spec.artifact_arch;
}

/* The i-th requirement, or NULL. `arch`: room for the one that compiling made. */
static const char *requirement(const struct function_version *version, size_t i,
                               char arch[LABEL_TEXT_MAX + 1])
{
    const struct function_spec *spec = &version->record.spec;
    if (i < spec->requires.count)
    return spec->requires.items[i];
    if (i > spec->requires.count || !spec->artifact_arch)
        return NULL;
    snprintf(arch, LABEL_TEXT_MAX + 1, "arch=%s", spec->artifact_arch);
    return arch;
}

static bool meets_all(const struct labels *labels, const struct function_version *version)
{
    char arch[LABEL_TEXT_MAX + 1];
    const char *one;
    for (size_t i = 0; (one = requirement(version, i, arch)); i++)
        if (!labels_meet(labels, one))
            return false;
    return true;
}

static void work_out(const struct placement *placement, const struct function_version *version,
                     struct placement_match *match)
{
    *match = (struct placement_match){.generation = placement->generation};
    for (int i = 0; i < PLACEMENT_PLACES; i++) {
        if (!placement->places[i].taken || !meets_all(&placement->places[i].labels, version))
            continue;
        match->places[i / 64] |= UINT64_C(1) << (i % 64);
        if (placement->places[i].standing > match->best)
            match->best = placement->places[i].standing;
    }
}

/* NULL when out of memory: it matches nothing then. */
static const struct placement_match *match_of(const struct placement *placement,
                                              struct function_version *version)
{
    if (!version->match)
        version->match = calloc(1, sizeof(*version->match));
    if (version->match && version->match->generation != placement->generation)
        work_out(placement, version, version->match);
    return version->match;
}

bool placement_fits(const struct placement *placement, struct function_version *version, int place)
{
    if (!placement_constrained(version))
        return true;
    const struct placement_match *match = match_of(placement, version);
    return match && (match->places[place / 64] >> (place % 64) & 1);
}

bool placement_fits_any(const struct placement *placement, struct function_version *version,
                        const uint64_t places[PLACEMENT_PLACES / 64])
{
    if (!placement_constrained(version))
        return true;
    const struct placement_match *match = match_of(placement, version);
    for (size_t i = 0; match && i < PLACEMENT_PLACES / 64; i++)
        if (match->places[i] & places[i])
            return true;
    return false;
}

static bool stands_at_least(const struct placement *placement, struct function_version *version,
                            enum placement_standing standing)
{
    if (!placement_constrained(version))
        return true;
    const struct placement_match *match = match_of(placement, version);
    return match && match->best >= standing;
}

bool placement_possible(const struct placement *placement, struct function_version *version)
{
    return stands_at_least(placement, version, PLACEMENT_TAKES);
}

bool placement_expected(const struct placement *placement, struct function_version *version)
{
    return stands_at_least(placement, version, PLACEMENT_PAUSES);
}

/* ---- words ---- */

static bool anybody_meets(const struct placement *placement, const char *one)
{
    for (int i = 0; i < PLACEMENT_PLACES; i++)
        if (placement->places[i].standing != PLACEMENT_GONE &&
            labels_meet(&placement->places[i].labels, one))
            return true;
    return false;
}

void placement_explain(const struct placement *placement, struct function_version *version,
                       char *text, size_t size)
{
    char arch[LABEL_TEXT_MAX + 1];
    const char *one;
    const char *name = version->function->name;
    if (placement_expected(placement, version)) {
        snprintf(text, size,
                 "every worker that has the labels that function %s requires is drained or stops",
                 name);
        return;
    }
    for (size_t i = 0; (one = requirement(version, i, arch)); i++) {
        if (anybody_meets(placement, one))
            continue;
        snprintf(text, size, "no worker in contact has the label %s, which function %s requires",
                 one, name);
        return;
    }
    int len = snprintf(text, size,
                       "no worker in contact has all labels that function %s requires:", name);
    for (size_t i = 0; (one = requirement(version, i, arch)) && len > 0 && (size_t)len < size; i++)
        len += snprintf(text + len, size - (size_t)len, "%s %s", i ? "," : "", one);
}
